"""How vector-label pairs look: one line, and a table of the first of them."""

from __future__ import annotations

from typing import Any

from interp_toolkit.tables import escaped, html_table

_ROWS = 10


def as_text(pairs: Any) -> str:
    """One line that says how many `VectorLabelPairs` there are, and of what.

    Args:
        pairs: the pairs.
    """
    train = pairs.splits.count("train")
    where = f", read at {pairs.site}" if pairs.site else ""
    centred = "" if pairs.mean is None else ", centred"
    count = len(set(pairs.questions) - {""})
    questions = f", {count:,} question{'s' * (count > 1)}" if count else ""
    what = "vectors" if pairs.stored.span == 1 else f"spans of {pairs.stored.span} vectors"
    return (
        f"VectorLabelPairs: {len(pairs):,} {what} of width {pairs.width:,}, "
        f"{train:,} to train and {len(pairs) - train:,} to validate{where}{centred}{questions}"
    )


def as_html(pairs: Any) -> str:
    """A table of the first pairs.

    Args:
        pairs: the pairs.
    """
    columns = ["vector", "labels", "split", "weight", *(["question"] if any(pairs.questions) else [])]
    first = zip(pairs.labels[:_ROWS], pairs.splits, pairs.weights, pairs.questions)
    rows = [
        (str(i), " · ".join(labels), split, f"{weight:g}", question)[: len(columns)]
        for i, (labels, split, weight, question) in enumerate(first)
    ]
    more = f"<small>{len(pairs) - len(rows):,} more</small>" if len(pairs) > len(rows) else ""
    return f"<p>{escaped(repr(pairs))}</p>{html_table(columns, rows, ['vector', 'weight'])}{more}"
