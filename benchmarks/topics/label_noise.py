"""The law behind "descriptions beat the labels that an adapter was trained on", where the truth is known.

Of the training titles' labels, and of those of the titles that choose the weights, a share is shuffled: each of these
vectors is given the title of another. A simple and an expressive adapter are trained on what is left, as the cells of
cells.py are. Then both are asked about the same training vectors, what label each had and what the adapter says of it,
and the adapter about held-out vectors too. Two measures of being right need no threshold: the true title's rank among
all titles, and whether the text is nearer to the true title than to another vector's title (a coin gives a half).

Wrong labels of a smaller share are among those of a larger one, so shares differ by nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.arguments import Folders
from benchmarks.topics.cells import ANSWER, FAMILY_SIZE, KINDS, QUESTION, SITE, SIZES, Cell, centred_pairs
from interp_toolkit import Adapter, SoftPrompt, train_adapter
from interp_toolkit.evaluation import recall_table
from interp_toolkit.evaluation.context import GREEDY, SEED, EvalContext
from interp_toolkit.models import model_facts
from interp_toolkit.pairs import topic_vectors
from interp_toolkit.results import finished_result, make_result, write_result
from interp_toolkit.sites import Site
from interp_toolkit.statistics import mean_interval, paired_difference

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8)
NOISE_KINDS = ("scalar_affine", "full_rank")
# Vectors described of each side.
MEASURED = 1000
LABELS = "its training labels"


def shuffled_labels(labels: Sequence[str], share: float, seed: int = SEED) -> list[str]:
    """Labels of which a share is exchanged, so that none of that share stays where it was.

    Args:
        labels: all different.
        share: between 0 and 1; at least two labels are exchanged where any are.
        seed: of the order in which rows are taken.
    """
    order = list(range(len(labels)))
    random.Random(seed).shuffle(order)
    wrong = order[: round(share * len(labels))]
    out = list(labels)
    for row, other in zip(wrong, wrong[1:] + wrong[:1]):
        out[row] = labels[other]
    return out


def measure_label_noise(context: EvalContext, path: Path, folders: Folders) -> None:
    """Train and measure every adapter at every share; a result with the same settings is left as it is.

    Args:
        context: titles, model and embedder.
        path: of the results file.
        folders: of the training runs.
    """
    count = SIZES[FAMILY_SIZE][0]
    titles, dev, held_out = context.titles.train[:count], context.titles.dev, context.titles.held_out[:MEASURED]
    cells = {kind: Cell(kind, FAMILY_SIZE) for kind in NOISE_KINDS}
    configs = {kind: cell.config for kind, cell in cells.items()}
    if context.limit is not None:  # a trial: one pass over its few titles
        configs = {kind: replace(config, epochs=1) for kind, config in configs.items()}
    settings = context.facts | dict(
        site=SITE,
        soft_prompt=[QUESTION, ANSWER],
        adapters={kind: KINDS[kind][0] for kind in cells},
        training={kind: config.to_dict() for kind, config in configs.items()},
        train_titles=len(titles),
        dev_titles=len(dev),
        shares=list(SHARES),
        n=len(held_out),
        protocol=GREEDY,
    )
    if finished_result(path, settings):
        print(f"label_noise: done before, see {path}")
        return
    site = Site.parse(SITE)
    raw = topic_vectors(context.model, context.titles.shards, site, progress=True)
    row = {title: i for i, title in enumerate(context.titles.shards)}
    train, chosen_by, held = (raw[[row[title] for title in side]] for side in (titles, dev, held_out))
    prompt = SoftPrompt.for_chat(context.model.tokenizer, QUESTION, ANSWER)
    d_model = model_facts(context.model).d_model
    rows = []
    for kind in cells:
        for share in SHARES:
            labels = shuffled_labels(titles, share)
            pairs = centred_pairs(context.model, site, (train, labels), (chosen_by, shuffled_labels(dev, share)))
            adapter = Adapter.create(**KINDS[kind][0], d_model=d_model, seed=SEED)
            folder = folders.runs / f"{kind}-{100 * share:.0f}"
            result = train_adapter(context.model, pairs, adapter, configs[kind], soft_prompt=prompt, folder=folder)
            centred = result.adapter.require_contract().centre
            seen = context.describe_greedily(result.adapter, centred(train[:MEASURED]))
            new = context.describe_greedily(result.adapter, centred(held))
            measured = _rows(context, (titles[:MEASURED], labels[:MEASURED], seen), (held_out, new))
            rows += [dict(adapter=kind, share=share, digest=result.adapter.digest, **one) for one in measured]
            print(kind, share, {one["vectors"]: one["nearer"] for one in measured}, flush=True)
    write_result(path, make_result(settings, context.versions, dict(label_noise=rows)))


def _rows(
    context: EvalContext, trained: tuple[list[str], list[str], list[str]], held: tuple[list[str], list[str]]
) -> list[dict[str, Any]]:
    """What is measured of one adapter: its labels, its descriptions of the same vectors, and those of held-out ones."""
    truth, labels, seen = trained
    wrong = [i for i, (true, label) in enumerate(zip(truth, labels)) if true != label]
    by_label, by_seen = _right(context, labels, truth), _right(context, seen, truth)
    rows = [
        dict(vectors="training", says=LABELS, **_summary(by_label)),
        dict(
            vectors="training",
            says="adapter",
            **_summary(by_seen),
            less_labels={
                name: _difference(by_seen[name], by_label[name]) for name in ("nearer", "recall@1", "recall@100")
            },
        ),
    ]
    if wrong:
        texts, true, wrongly = ([side[i] for i in wrong] for side in (seen, truth, labels))
        # Nearer to the truth than to the wrong label that the very vector was trained on.
        sides = _nearer(context, texts, true, wrongly)
        rows.append(
            dict(vectors="wrongly labelled", says="adapter", **_summary(_right(context, texts, true)))
            | dict(nearer_than_label=_interval(sides))
        )
    rows.append(dict(vectors="held out", says="adapter", **_summary(_right(context, held[1], held[0]))))
    return rows


def _right(context: EvalContext, texts: list[str], truth: list[str]) -> dict[str, Tensor]:
    """How right each text is, by measure: a number for each text."""
    ranks = context.ranks([[text] for text in texts], context.answers(truth))[:, 0]
    others = truth[1:] + truth[:1]
    return {
        "nearer": _nearer(context, texts, truth, others),
        **{f"recall@{k}": (ranks <= k).double() for k in (1, 100)},
        "rank": ranks.double(),
    }


def _nearer(context: EvalContext, texts: list[str], truth: list[str], others: list[str]) -> Tensor:
    """Whether each text is nearer to the true title than to the other: 1, 0, or a half where both are as near."""
    texts = [text.strip() or "-" for text in texts]
    spoken, true, other = (
        torch.nn.functional.normalize(context.embed(side), dim=-1) for side in (texts, truth, others)
    )
    near, far = (spoken * true).sum(1), (spoken * other).sum(1)
    return ((near > far).double() + (near >= far).double()) / 2


def _summary(right: dict[str, Tensor]) -> dict[str, Any]:
    recall = recall_table(right["rank"].long(), at=(1, 10, 100), seed=SEED)
    return dict(
        nearer=_interval(right["nearer"]),
        **{row["measure"]: [row["value"], row["low"], row["high"]] for row in recall.to_dict("records")},
        n=len(right["rank"]),
    )


def _interval(values: Tensor) -> list[float]:
    interval = mean_interval(values, seed=SEED)
    return [interval.value, interval.low, interval.high]


def _difference(first: Tensor, second: Tensor) -> list[float]:
    difference = paired_difference(first, second, seed=SEED)
    return [difference.value, difference.low, difference.high]
