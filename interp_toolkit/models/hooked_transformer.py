"""Building a `HookedTransformer` from a Hugging Face model in memory, weights unchanged.

TransformerLens itself builds one only by a name out of its own table, and guesses the architecture from the path.
"""

from __future__ import annotations

from typing import Any

import torch

from interp_toolkit.errors import InterpToolkitError

# The tables for rotary positions and masks grow with the context; descriptions and prompts are far shorter.
_MAX_CONTEXT = 2048


def build_hooked_transformer(hf_model: Any, tokenizer: Any, name: str) -> Any:
    """A `HookedTransformer` with the weights of ``hf_model``, on its device and in its dtype.

    No processing is applied (nothing folded, nothing centred), so its residual stream is that of Hugging Face.

    Args:
        hf_model: of transformers.
        tokenizer: of the model.
        name: of the model, for its config.

    Raises:
        InterpToolkitError: TransformerLens 4 is installed, or the architecture is none of Llama, Qwen2, Gemma 2, GPT-2.
    """
    try:
        from transformer_lens import HookedTransformer, HookedTransformerConfig
    except ImportError as error:
        raise InterpToolkitError(
            "TransformerLens 4 has no HookedTransformer; use backend='bridge', or pip install 'transformer-lens<4'"
        ) from error
    architecture = type(hf_model).__name__
    if architecture not in _ARCHITECTURES:
        raise InterpToolkitError(
            f"backend='hooked_transformer' can be built for {', '.join(_ARCHITECTURES)}, got {architecture}; "
            f"use backend='bridge', or give an already loaded HookedTransformer"
        )
    facts, convert = _ARCHITECTURES[architecture]
    config = hf_model.config
    parameter = next(hf_model.parameters())
    cfg = HookedTransformerConfig(
        n_layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        n_heads=config.num_attention_heads,
        n_ctx=min(config.max_position_embeddings, _MAX_CONTEXT),
        d_vocab=config.vocab_size,
        original_architecture=architecture,
        model_name=name,
        init_weights=False,
        default_prepend_bos=False,
        device=str(parameter.device),
        dtype=parameter.dtype,
        **facts(config),
    )
    model = HookedTransformer(cfg, tokenizer)
    with torch.no_grad():
        converted = convert(hf_model, cfg) | _attention_biases(hf_model, cfg)
        state = {key: value.to(parameter.dtype) for key, value in converted.items()}
    if "pos_embed.W_pos" in state:
        state["pos_embed.W_pos"] = state["pos_embed.W_pos"][: cfg.n_ctx]
    model.load_and_process_state_dict(
        state, fold_ln=False, center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    return model.eval()


def _attention_biases(hf_model: Any, cfg: Any) -> dict[str, torch.Tensor]:
    """Biases of Llama's kind of attention, of which TransformerLens's conversions know Qwen2's only."""
    biases = {}
    for layer, block in enumerate(getattr(hf_model.base_model, "layers", ())):
        for letter, heads in (("Q", cfg.n_heads), ("K", cfg.n_key_value_heads), ("V", cfg.n_key_value_heads)):
            bias = getattr(block.self_attn, f"{letter.lower()}_proj").bias
            if bias is not None:
                grouped = "_" if letter != "Q" and cfg.n_key_value_heads else ""
                biases[f"blocks.{layer}.attn.{grouped}b_{letter}"] = bias.reshape(heads or cfg.n_heads, -1)
        if block.self_attn.o_proj.bias is not None:
            biases[f"blocks.{layer}.attn.b_O"] = block.self_attn.o_proj.bias
    return biases


def _rotary(config: Any) -> dict[str, Any]:
    """What Llama and its descendants have in common."""
    window = getattr(config, "sliding_window", None)
    if config.model_type != "gemma2" and window and window < min(config.max_position_embeddings, _MAX_CONTEXT):
        raise InterpToolkitError(
            f"backend='hooked_transformer' has no sliding windows for {config.model_type}, got one of {window} tokens; "
            f"use backend='bridge'"
        )
    d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    grouped = config.num_key_value_heads != config.num_attention_heads
    return dict(
        d_head=d_head,
        n_key_value_heads=config.num_key_value_heads if grouped else None,
        d_mlp=config.intermediate_size,
        eps=config.rms_norm_eps,
        act_fn=getattr(config, "hidden_act", None) or config.hidden_activation,
        normalization_type="RMS",
        positional_embedding_type="rotary",
        rotary_adjacent_pairs=False,
        rotary_dim=d_head,
        rotary_base=config.rope_parameters["rope_theta"],
        final_rms=True,
        gated_mlp=True,
        **_rope_scaling(config),
    )


def _rope_scaling(config: Any) -> dict[str, Any]:
    rope = config.rope_parameters
    if rope.get("rope_type", "default") == "default":
        return {}
    if rope["rope_type"] != "llama3":
        raise InterpToolkitError(
            f"HookedTransformer knows rope_type 'default' and 'llama3', got {rope['rope_type']!r}; use backend='bridge'"
        )
    return dict(
        use_NTK_by_parts_rope=True,
        NTK_by_parts_low_freq_factor=rope["low_freq_factor"],
        NTK_by_parts_high_freq_factor=rope["high_freq_factor"],
        NTK_by_parts_factor=rope["factor"],
        NTK_original_ctx_len=rope["original_max_position_embeddings"],
    )


def _gemma2(config: Any) -> dict[str, Any]:
    return {
        **_rotary(config),
        "attn_scale": config.query_pre_attn_scalar**0.5,
        "use_local_attn": True,
        "window_size": config.sliding_window,
        "attn_types": ["local" if kind == "sliding_attention" else "global" for kind in config.layer_types],
        "attn_scores_soft_cap": config.attn_logit_softcapping or -1.0,
        "output_logits_soft_cap": config.final_logit_softcapping or -1.0,
        "use_normalization_before_and_after": True,
    }


def _gpt2(config: Any) -> dict[str, Any]:
    return dict(
        d_head=config.hidden_size // config.num_attention_heads,
        d_mlp=config.n_inner or 4 * config.hidden_size,
        eps=config.layer_norm_epsilon,
        act_fn=config.activation_function,
        normalization_type="LN",
        use_attn_scale=config.scale_attn_weights,
        scale_attn_by_inverse_layer_idx=config.scale_attn_by_inverse_layer_idx,
    )


def _convert(module: str) -> Any:
    """The weight conversion of an architecture, imported when called: TransformerLens 4 has none."""

    def convert(hf_model: Any, cfg: Any) -> dict[str, torch.Tensor]:
        import importlib

        conversions = importlib.import_module(f"transformer_lens.pretrained.weight_conversions.{module}")
        return getattr(conversions, f"convert_{module}_weights")(hf_model, cfg)

    return convert


_ARCHITECTURES = {
    "LlamaForCausalLM": (_rotary, _convert("llama")),
    "Qwen2ForCausalLM": (_rotary, _convert("qwen2")),
    "Gemma2ForCausalLM": (_gemma2, _convert("gemma")),
    "GPT2LMHeadModel": (_gpt2, _convert("gpt2")),
}
