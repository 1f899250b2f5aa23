"""Example texts: what a model writes when it is asked for texts that show a label."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from interp_toolkit.chat import prompt_ids
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.files import whole_file
from interp_toolkit.models import context_length, weights_key
from interp_toolkit.runtime.answers import sampled_answers

PROMPT = (
    "Write one or two short sentences, as they could stand in a book, an article or a conversation, that clearly show "
    "this: {label}\nWrite nothing but these sentences."
)
# Labels written for at a time and kept on disk: what an interruption can lose.
_SHARD = 64


@dataclass(frozen=True)
class Writing:
    """How texts are written for a label.

    Attributes:
        texts: how many a label.
        prompt: what the user says, with ``{label}`` in it.
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
            raise InterpToolkitError(f"expected at least one text a label, got {self.texts}")


def write_texts(
    model: Any,
    counts: Mapping[str, int],
    writing: Writing,
    folder: Path | None = None,
    progress: bool = False,
) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Texts that the model writes for labels, and the reasons why others have none.

    With a folder they are kept there shard by shard, and what is there is not written again, whichever labels it was
    asked for with.

    Args:
        model: the hooked model; one without a chat template goes on with the prompt.
        counts: for each label how many texts.
        writing: how.
        folder: where to keep them.
        progress: whether to show a bar, in labels.

    Returns:
        by label its texts, of which some may be empty; and by label why there are none.
    """
    kept = _kept(folder, model, writing)
    failed = _too_long(model, list(counts), writing)
    todo = [label for label in counts if label not in failed and len(kept.get(label, ())) < counts[label]]
    # Prompts of like length are decoded together.
    todo.sort(key=lambda label: (counts[label], len(label), label))
    settings = {name: value for name, value in asdict(writing).items() if name not in ("texts", "prompt")}
    with tqdm(total=len(todo), desc="writing", unit="label", disable=not progress) as bar:
        while todo:
            count = counts[todo[0]]
            shard = [label for label in todo[:_SHARD] if counts[label] == count]
            todo = todo[len(shard) :]
            prompts = [writing.prompt.replace("{label}", label) for label in shard]
            told = dict(zip(shard, sampled_answers(model, prompts, samples=count, **settings)))
            if folder is not None:
                name = hashlib.sha256(json.dumps([shard, count]).encode()).hexdigest()[:32]
                with whole_file(_place(folder, model, writing) / f"{name}.json") as draft:
                    draft.write_text(json.dumps(told, ensure_ascii=False))
            kept |= told
            bar.update(len(shard))
    return {label: kept[label][: counts[label]] for label in counts if label not in failed}, failed


def _kept(folder: Path | None, model: Any, writing: Writing) -> dict[str, list[str]]:
    """All texts in the folder that were written in this way; of two lots for one label the larger."""
    out: dict[str, list[str]] = {}
    for path in sorted(_place(folder, model, writing).glob("*.json")) if folder is not None else ():
        try:
            told = json.loads(path.read_text())
        except (OSError, ValueError):
            continue  # damaged: written anew
        out |= {label: texts for label, texts in told.items() if len(texts) > len(out.get(label, ()))}
    return out


def _place(folder: Path, model: Any, writing: Writing) -> Path:
    """A folder named for all that decides a text but its label and number."""
    settings = {name: value for name, value in asdict(writing).items() if name != "texts"}
    told = [weights_key(model), settings]
    return folder / "texts" / hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _too_long(model: Any, labels: Sequence[str], writing: Writing) -> dict[str, str]:
    limit = context_length(model)
    rows = prompt_ids(model.tokenizer, [writing.prompt.replace("{label}", label) for label in labels])
    return {
        label: f"the label is too long: {len(row)} tokens with its prompt, and {writing.max_new_tokens} to write, are "
        f"over the model's {limit}"
        for label, row in zip(labels, rows)
        if limit and len(row) + writing.max_new_tokens > limit
    }
