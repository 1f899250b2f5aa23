"""Training an adapter to answer: pairs of vectors and answers, beside descriptions that it already gives."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.questions.questions import Answered, Question, Text
from interp_toolkit import Adapter, TrainConfig, VectorLabelPairs, train_adapter
from interp_toolkit.chat import prompt_ids
from interp_toolkit.evaluation.context import SEED
from interp_toolkit.pairs.token_vectors import cache_key, token_vectors
from interp_toolkit.sites import Place

# Texts read and stored at a time.
_SHARD = 512
# One example of so many chooses the weights.
_VALIDATION = 20
BATCH, LR = 64, 0.002


class Reader:
    """Raw vectors of texts at their last tokens, each read once.

    Args:
        model: the hooked model.
        place: where to read.
        span: how many of the last tokens are read together.
    """

    def __init__(self, model: Any, place: Place, span: int = 1) -> None:
        self._model, self._place, self._key, self._span = model, place, cache_key(model), span
        self._vectors: dict[Text, Tensor] = {}

    def read(self, texts: Sequence[Text]) -> list[Tensor]:
        """The vector of each text, [width], or those of its last tokens, [span, width]."""
        for chat in (True, False):
            new = sorted({text for text in texts if text.chat == chat} - set(self._vectors), key=lambda x: x.text)
            for start in range(0, len(new), _SHARD):
                shard = new[start : start + _SHARD]
                ids = prompt_ids(self._model.tokenizer, [text.text for text in shard], chat)
                last = [list(range(len(row) - self._span, len(row))) for row in ids]
                vectors = token_vectors(self._model, ids, self._place, last, self._key)
                self._vectors |= zip(shard, vectors.view(len(ids), self._span, -1) if self._span > 1 else vectors)
        return [self._vectors[text] for text in texts]

    def long_enough(self, texts: Sequence[Answered]) -> list[Answered]:
        """Those that have as many tokens as are read."""
        tokenizer = self._model.tokenizer
        return [one for one in texts if len(prompt_ids(tokenizer, [one.text.text], one.text.chat)[0]) >= self._span]


def answer_pairs(questions: Sequence[Question], reader: Reader, adapter: Adapter) -> VectorLabelPairs:
    """Pairs whose labels are answers, each text in a drawn wording of its question.

    Args:
        questions: of which the trained ones are taken.
        reader: of their texts.
        adapter: whose mean is subtracted.
    """
    rng = random.Random(SEED)
    rows: list[tuple[Text, str, str]] = []
    for question in questions:
        if question.trained:
            rows += [(one.text, rng.choice(question.wordings), question.choices[one.right]) for one in question.train]
    return _pairs(rows, reader, adapter)


def description_pairs(titles: Sequence[tuple[str, Text]], reader: Reader, adapter: Adapter) -> VectorLabelPairs:
    """Pairs whose labels are titles, without a question, so that the adapter goes on describing.

    Args:
        titles: each with the text that speaks of it.
        reader: of the texts.
        adapter: whose mean is subtracted.
    """
    return _pairs([(text, "", title) for title, text in titles], reader, adapter)


def train(
    model: Any, pairs: VectorLabelPairs, adapter: Adapter, epochs: int, folder: Path, max_steps: int | None = None
) -> Adapter:
    """Train an adapter further, or go on with it.

    Args:
        model: the hooked model.
        pairs: with questions.
        adapter: where training starts, whose soft prompt is kept.
        epochs: passes over the pairs.
        folder: of the run.
        max_steps: of a trial.
    """
    config = TrainConfig(
        epochs=epochs, max_steps=max_steps, batch_size=BATCH, lr=LR, warmup_steps=50, eval_every=200, val_examples=400
    )
    prompt = adapter.require_contract().require_soft_prompt()
    return train_adapter(model, pairs, adapter, config, soft_prompt=prompt, folder=folder).adapter


def _pairs(rows: Sequence[tuple[Text, str, str]], reader: Reader, adapter: Adapter) -> VectorLabelPairs:
    contract = adapter.require_contract()
    raw = torch.stack(reader.read([text for text, _, _ in rows]))
    splits = ["val" if i % _VALIDATION == 0 else "train" for i in range(len(rows))]
    order = list(range(len(rows)))
    random.Random(SEED).shuffle(order)
    pairs = VectorLabelPairs.from_tensors(
        contract.centre(raw)[order],
        [rows[i][2] for i in order],
        splits=splits,
        site=contract.site,
        mean=contract.mean,
        origin=dict(model=contract.model_id, source="texts with answers"),
    )
    return pairs.with_questions([rows[i][1] for i in order])
