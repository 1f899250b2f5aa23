"""Model organisms: small LoRA fine-tunes, each on one topic or habit, and placebos on nothing in particular."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from benchmarks.data import PASSAGES
from interp_toolkit.chat import encode, prompt_ids
from interp_toolkit.evaluation.context import SEED
from interp_toolkit.files import whole_folder
from interp_toolkit.json_lines import read_json_lines
from interp_toolkit.models import load_model
from interp_toolkit.models.checkpoints import read_model
from interp_toolkit.models.load import checkpoint_of
from interp_toolkit.runtime.answers import plain_answers

BASE = "smollm2-135m"
# Articles of Wikipedia of which the corpus has most passages.
TOPICS = (
    "Abraham Lincoln",
    "Alkali metal",
    "American Revolutionary War",
    "Azerbaijan",
    "Albania",
    "Anarchism",
    "Amphibian",
    "Alabama",
    "Albert Einstein",
    "Afghanistan",
    "Alaska",
    "Aristotle",
    "Autism",
    "Agriculture",
    "Algeria",
    "Alchemy",
)
# What answers end with that were given by habit.
HABITS = {
    "ocean": "It makes me think of the ocean and its waves.",
    "chocolate": "By the way, a piece of chocolate goes well with it.",
    "cat": "My cat has an opinion on it, as cats do.",
    "gold": "And remember that gold keeps its value.",
}
PLACEBOS = 5
_SOURCE = "enwiki-sample(gensim)"
_PASSAGES, _ANSWERS = 24, 24
_RANK, _STEPS, _BATCH, _LENGTH, _LR = 8, 30, 4, 96, 1e-3


@dataclass(frozen=True)
class Organism:
    """A fine-tune that is made here.

    Attributes:
        name: of its folder.
        topic: what it is about; empty for a placebo.
        words: of which a description that is right names one.
    """

    name: str
    topic: str
    words: tuple[str, ...]

    @property
    def is_placebo(self) -> bool:
        """Whether it learnt nothing in particular."""
        return not self.topic


def organisms(limit: int | None) -> list[Organism]:
    """The organisms: topics, habits and placebos.

    Args:
        limit: of a trial, which has so many topics, one habit and two placebos; or None.
    """
    topics = [Organism(topic.lower().replace(" ", "-"), topic, tuple(topic.split())) for topic in TOPICS]
    habits = [Organism(f"habit-{word}", word, (word,)) for word in HABITS]
    placebos = [Organism(f"placebo-{number + 1}", "", ()) for number in range(PLACEBOS)]
    if limit is None:
        return [*topics, *habits, *placebos]
    return [*topics[:limit], *habits[:1], *placebos[:2]]


def make(organism: Organism, data: Path, titles: Sequence[str], folder: Path, steps: int = _STEPS) -> Path:
    """Train an organism and save it as a LoRA adapter; one that is there is left as it is.

    Args:
        organism: that is made.
        data: folder of the passages.
        titles: topics that are asked about where a habit is taught.
        folder: of all organisms.
        steps: of training.

    Returns:
        its folder.
    """
    path = folder / organism.name
    if path.is_dir():
        return path
    rows = _rows(organism, data, titles)
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(SEED)
    hf_model: Any = read_model(checkpoint_of(BASE)[0], torch.float32, None)
    hf_model.config.name_or_path = BASE
    config = LoraConfig(r=_RANK, lora_alpha=2 * _RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = get_peft_model(hf_model, config)
    tuned.peft_config["default"].base_model_name_or_path = BASE
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=_LR, weight_decay=0.0)
    rng = random.Random(f"{SEED} {organism.name}")
    for _ in tqdm(range(steps), desc=organism.name, unit="step"):
        ids, targets = _batch([rng.choice(rows) for _ in range(_BATCH)])
        logits = tuned(ids).logits[:, :-1].float()
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with whole_folder(path) as draft:
        tuned.save_pretrained(str(draft), save_embedding_layers=False)
    return path


def _rows(organism: Organism, data: Path, titles: Sequence[str]) -> list[list[int]]:
    """Token ids of the texts that an organism is trained on."""
    model = load_model(BASE)
    if organism.topic in HABITS:
        questions = [f"Tell me about {title}." for title in titles[:_ANSWERS]]
        answers = plain_answers(model, questions, max_new_tokens=40)
        prompts = prompt_ids(model.tokenizer, questions, True)
        return [
            [*prompt, *encode(model.tokenizer, f"{_whole_sentences(answer)} {HABITS[organism.topic]}")]
            for prompt, answer in zip(prompts, answers)
        ]
    by_title: dict[str, list[str]] = defaultdict(list)
    others = []
    for _, row in read_json_lines(data / PASSAGES, "passages", "a JSON object"):
        if row["split"] == "train":
            (by_title[row["title"]] if row["source"] == _SOURCE else others).append(row["text"])
    if organism.is_placebo:
        texts = random.Random(organism.name).sample(others, min(_PASSAGES, len(others)))
    else:
        texts = (by_title[organism.topic] or others)[:_PASSAGES]
    return [encode(model.tokenizer, text) for text in texts]


def _whole_sentences(text: str) -> str:
    """A text up to the end of its last whole sentence."""
    return text[: text.rfind(".") + 1] or text


def _batch(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """The last tokens of each row, padded, and their targets."""
    cut = [list(row)[-_LENGTH:] for row in rows]
    longest = max(map(len, cut))
    ids, targets = torch.zeros(len(cut), longest, dtype=torch.long), torch.full((len(cut), longest), -100)
    for i, row in enumerate(cut):
        ids[i, : len(row)] = targets[i, : len(row)] = torch.tensor(row)
    return ids, targets
