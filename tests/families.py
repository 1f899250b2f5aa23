"""Tiny random models of the families that transformers and TransformerLens have in common, and what they compute."""

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

# Each config takes of these what it knows.
_SIZES = dict(
    vocab_size=320,
    **dict.fromkeys(["hidden_size", "n_embd", "d_model", "word_embed_proj_dim"], 32),
    **dict.fromkeys(["intermediate_size", "n_inner", "ffn_hidden_size", "ffn_dim", "d_ff"], 64),
    **dict.fromkeys(["num_hidden_layers", "n_layer", "n_layers", "num_layers"], 4),
    **dict.fromkeys(["num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"], 4),
    num_key_value_heads=2,
    head_dim=8,
    rotary_dim=4,
    **dict.fromkeys(["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"], 512),
    **dict.fromkeys(["num_experts", "num_local_experts", "n_routed_experts"], 4),
    num_experts_per_tok=2,
    moe_intermediate_size=16,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    initializer_range=0.15,
    **dict.fromkeys(["embd_pdrop", "attn_pdrop", "resid_pdrop", "dropout", "attention_dropout"], 0),
    **dict.fromkeys(["hidden_dropout", "activation_dropout", "layerdrop"], 0),
)
_LATENT = dict(
    q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8, n_group=1, topk_group=1
) | dict(num_key_value_heads=4, head_dim=8)
_MAMBA = dict(mamba_n_heads=8, mamba_d_head=8, mamba_expand=2, mamba_d_ssm=64, mamba_n_groups=1, mamba_d_state=8)
_FACTORS = dict(embedding_multiplier=3.0, residual_multiplier=0.5, attention_multiplier=0.3, logits_scaling=4.0)


def _longrope(limit):
    factors = dict(short_factor=[1.0] * 4, long_factor=[3.0] * 4, factor=4.0)
    return dict(
        rope_parameters=dict(rope_type="longrope", rope_theta=1e4, original_max_position_embeddings=limit) | factors
    )


_PLAIN = """
afmoe apertus arcee bitnet bloom codegen cohere cohere2 ernie4_5 ernie4_5_moe exaone4 falcon falcon_mamba
flex_olmo gemma gemma2 gemma3_text glm glm4 glm4_moe gpt-sw3 gpt2 gpt_bigcode gpt_neox gpt_oss gptj
hunyuan_v1_dense internlm3 iquestcoder jais2 jetmoe laguna llama llama4_text mamba minimax_m2 ministral3
mistral mixtral modernbert-decoder mpt nanochat nemotron olmo olmo2 olmo3 olmo_hybrid olmoe opt phi phi3 qwen2
qwen2_moe qwen3 qwen3_5_text qwen3_5_moe_text qwen3_moe qwen3_next recurrent_gemma seed_oss smollm3 stablelm
starcoder2 vaultgemma xglm
"""

# Name of a case: model type, and what its config needs or is worth trying.
CASES = {name: (name, {}) for name in _PLAIN.split()} | {
    "bamba": ("bamba", _MAMBA | dict(attn_layer_indices=[1, 3])),
    "deepseek_v2": ("deepseek_v2", _LATENT),
    "deepseek_v3": ("deepseek_v3", _LATENT),
    "falcon_h1": ("falcon_h1", _MAMBA | dict(lm_head_multiplier=0.3)),
    "gemma4_text": (
        "gemma4_text",
        dict(hidden_size_per_layer_input=8, vocab_size_per_layer_input=320, num_kv_shared_layers=0, global_head_dim=16),
    ),
    "glm4_moe_lite": ("glm4_moe_lite", _LATENT),
    "glm_moe_dsa": ("glm_moe_dsa", _LATENT),
    "gpt_neo": ("gpt_neo", dict(attention_types=[[["global", "local"], 2]], window_size=8)),
    "granite": ("granite", _FACTORS),
    "granitemoe": ("granitemoe", _FACTORS),
    "granitemoehybrid": (
        "granitemoehybrid",
        _MAMBA | _FACTORS | dict(layer_types=["mamba", "attention"] * 2, position_embedding_type="rope"),
    ),
    "jamba": ("jamba", dict(attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, mamba_expand=2)),
    "lfm2": ("lfm2", dict(layer_types=["conv", "full_attention"] * 2)),
    "lfm2_moe": ("lfm2_moe", dict(layer_types=["conv", "full_attention"] * 2)),
    "mamba2": ("mamba2", dict(num_heads=8, head_dim=8, n_groups=1, state_size=8, expand=2)),
    "nemotron_h": (
        "nemotron_h",
        dict(layers_block_type=["mamba", "attention", "mlp", "attention"], mamba_num_heads=8, mamba_head_dim=8)
        | dict(n_groups=1, ssm_state_size=8),
    ),
    "youtu": ("youtu", _LATENT),
    # Settings of known families that are easily passed over.
    "bloom of a class that adds late": ("bloom", dict(apply_residual_connection_post_layernorm=True)),
    "falcon with ALiBi": ("falcon", dict(alibi=True, new_decoder_architecture=False, multi_query=True)),
    "gemma2 with a low cap": (
        "gemma2",
        dict(final_logit_softcapping=2.0, attn_logit_softcapping=5.0, sliding_window=8),
    ),
    "gemma3 with short windows": ("gemma3_text", dict(sliding_window=8)),
    "gpt2 scaled by layers": ("gpt2", dict(scale_attn_by_inverse_layer_idx=True)),
    "gpt2 unscaled": ("gpt2", dict(scale_attn_weights=False)),
    "gpt_neox in sequence": ("gpt_neox", dict(use_parallel_residual=False)),
    "gpt_oss with short windows": ("gpt_oss", dict(sliding_window=8)),
    "llama with biases in attention": ("llama", dict(attention_bias=True)),
    "llama with biases": ("llama", dict(attention_bias=True, mlp_bias=True)),
    "llama with dynamic frequencies": (
        "llama",
        dict(max_position_embeddings=40, rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=4.0)),
    ),
    "llama of one head": ("llama", dict(num_key_value_heads=1)),
    "llama with yarn": (
        "llama",
        dict(rope_parameters=dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=64)),
    ),
    "mistral with short windows": ("mistral", dict(sliding_window=8)),
    "opt with a narrow embedding": ("opt", dict(word_embed_proj_dim=16, do_layer_norm_before=False)),
    "phi3 past its short factors": ("phi3", _longrope(24)),
    "phi3 within its short factors": ("phi3", _longrope(4096)),
    "qwen2 with short windows": ("qwen2", dict(use_sliding_window=True, sliding_window=8, max_window_layers=1)),
}


# What TransformerLens cannot wrap, or does not wrap right.
REFUSED = {
    "bert": "tokens see those behind them",
    "biogpt": "Could not determine supported architecture",
    "cohere": "did not declare 'q_norm'",
    "deepseek_v4": "(has no hook point|has no attribute 'scorer')",
    "falcon": "cannot be used with backend='bridge': split_with_sizes",
    "hrm_text": "has no attribute 'blocks'",
    "openai-gpt": "after block 0 cannot be read",
}
_REFUSED_SETTINGS = {
    "cohere": dict(use_qk_norm=True),
    "falcon": dict(new_decoder_architecture=True, num_kv_heads=2),
}


def build_refused(model_type):
    """A tiny random model of a family in `REFUSED`."""
    return _build(model_type, _REFUSED_SETTINGS.get(model_type, {}))


def build(case):
    """A tiny random model in Hugging Face's own class, float32: every weight, gain and bias is random."""
    return _build(*CASES[case])


def _build(model_type, settings):
    kind = CONFIG_MAPPING[model_type]
    known = vars(kind()) | dict.fromkeys(getattr(kind, "attribute_map", {}))
    config = kind(**{name: value for name, value in _SIZES.items() if name in known} | settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
        with torch.no_grad():
            for value in model.parameters():
                value.add_(torch.randn_like(value), alpha=0.1)
    return model.requires_grad_(False)


def blocks_of(model, n_layers):
    """The blocks of a model of transformers."""
    lists = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    return next(blocks for blocks in lists if len(blocks) == n_layers)


def streams_of(model, tokens, n_layers):
    """What each block gives for tokens [rows, positions], by forward hooks."""
    streams = []

    def record(module, args, out):
        streams.append(out[0] if isinstance(out, tuple) else out)

    handles = [block.register_forward_hook(record) for block in blocks_of(model, n_layers)]
    with torch.no_grad():
        logits = model(tokens, use_cache=False).logits
    for handle in handles:
        handle.remove()
    return streams, logits


def logits_with(model, tokens, soft_tokens, slots, n_layers):
    """Logits of tokens [rows, positions] with soft tokens in the slots of what the first block reads."""

    def write(stream):
        stream = stream.clone()
        stream[:, list(slots)] = soft_tokens[:, None]
        return stream

    def hook(module, args, named):
        if args:
            return (write(args[0]), *args[1:]), named
        return args, named | {"hidden_states": write(named["hidden_states"])}

    handle = blocks_of(model, n_layers)[0].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        return model(tokens, use_cache=False).logits
    finally:
        handle.remove()
