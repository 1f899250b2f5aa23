"""What is known of a model from its files without its weights: tokenizer, sizes, stop tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        facts: without a fingerprint, since no weights are read.
        tokenizer: of the model.
        stops: ids at which it may end its turn.
        context: the most tokens that it reads at once.
        vocabulary: rows of its embedding.
    """

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
            ModelFacts(name, revision, "", int(config.hidden_size), int(config.num_hidden_layers)),
            tokenizer,
            tuple(sorted(stops | set(stop_ids(_Tokenized(tokenizer))))),
            int(getattr(config, "max_position_embeddings", 0) or 1 << 20),
            int(config.vocab_size),
        )


@dataclass(frozen=True)
class _Tokenized:
    """What `stop_ids` looks at."""

    tokenizer: Any
