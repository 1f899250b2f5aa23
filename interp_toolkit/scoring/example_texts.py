"""Example texts: texts that a model writes to show a label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from interp_toolkit.cache import JsonCache
from interp_toolkit.chat import prompt_ids
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.models import context_length, weights_key
from interp_toolkit.runtime.answers import sampled_answers

PROMPT = (
    "Write one or two short sentences, as they could stand in a book, an article or a conversation, that clearly show "
    "this: {label}\nWrite nothing but these sentences."
)
# Labels whose texts are written at a time: what an interruption can lose.
_SHARD = 64


@dataclass(frozen=True)
class GenerationConfig:
    """How texts are generated for a label.

    Attributes:
        texts: number of texts per label.
        prompt: the user's turn, with ``{label}`` in it.
        temperature: of the sampling.
        top_p: likewise.
        max_new_tokens: longest text, in tokens.
        seed: of the sampling.
    """

    texts: int = 10
    prompt: str = PROMPT
    temperature: float = 0.7
    top_p: float = 0.9
    max_new_tokens: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        if "{label}" not in self.prompt:
            raise InterpToolkitError(f"expected a prompt with {{label}} in it, got {self.prompt!r}")
        if self.texts < 1:
            raise InterpToolkitError(f"expected at least one text per label, got {self.texts}")


def write_texts(
    model: Any,
    counts: Mapping[str, int],
    config: GenerationConfig,
    folder: Path | None = None,
    progress: bool = False,
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Let the model write texts for labels.

    With a folder, each label's texts are cached there, and what is cached is not written again.

    Args:
        model: the hooked model; one without a chat template goes on with the prompt.
        counts: for each label how many texts.
        config: how texts are generated; its ``texts`` are not used.
        folder: the cache folder.
        progress: whether to show a bar, in labels.

    Returns:
        by label its texts, of which some may be empty; and by label the reason why there are none.

    Raises:
        InterpToolkitError: with a folder, a model with hooks or replaced forwards of your own.
    """
    cache = None if folder is None else JsonCache("texts", folder)
    keys = {} if cache is None else _keys(model, counts, config)
    texts = {label: (cache.load(keys[label]) if cache is not None else None) or [] for label in counts}
    failed = _too_long(model, list(counts), config)
    todo = [label for label in counts if label not in failed and len(texts[label]) < counts[label]]
    # Prompts of like length are decoded together.
    todo.sort(key=lambda label: (counts[label], len(label), label))
    sampling = {name: value for name, value in asdict(config).items() if name not in ("texts", "prompt")}
    with tqdm(total=len(todo), desc="writing", unit="label", disable=not progress) as bar:
        while todo:
            count = counts[todo[0]]
            shard = [label for label in todo[:_SHARD] if counts[label] == count]
            todo = todo[len(shard) :]
            prompts = [config.prompt.replace("{label}", label) for label in shard]
            for label, answers in zip(shard, sampled_answers(model, prompts, samples=count, **sampling)):
                texts[label] = answers if cache is None else cache.save(keys[label], answers)
            bar.update(len(shard))
    return {label: texts[label][: counts[label]] for label in counts if label not in failed}, failed


def _keys(model: Any, labels: Iterable[str], config: GenerationConfig) -> dict[str, Any]:
    """For each label all that decides its texts but their number: further texts change none of the earlier ones."""
    settings = {name: value for name, value in asdict(config).items() if name != "texts"}
    weights = weights_key(model)
    return {label: [weights, settings, label] for label in labels}


def _too_long(model: Any, labels: Sequence[str], config: GenerationConfig) -> dict[str, str]:
    limit = context_length(model)
    rows = prompt_ids(model.tokenizer, [config.prompt.replace("{label}", label) for label in labels])
    return {
        label: f"the label is too long: {len(row)} tokens with its prompt, and {config.max_new_tokens} to write, are "
        f"over the model's {limit}"
        for label, row in zip(labels, rows)
        if limit and len(row) + config.max_new_tokens > limit
    }
