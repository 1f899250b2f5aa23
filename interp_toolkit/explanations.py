"""Explanations: the descriptions that a model generated for vectors, as a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from interp_toolkit.deprecation import renamed_fields
from interp_toolkit.tables import html_table, text_table

COLUMNS = (
    "source", "site", "position", "token", "sample", "description", "log_prob", "evidence", "confidence",
    "above_threshold", "scale"
)  # fmt: skip
_NUMBERS = ("position", "sample", "log_prob", "evidence", "confidence", "scale")
# Tables for people show whether a description counts under a shorter name.
_HEADINGS = {"above_threshold": "verdict"}
# A notebook keeps what it shows: a page of rows as HTML, and as text the ends of what is long, as a data frame's are.
_HTML_ROWS = 100
_TEXT_ROWS = 60
_END_ROWS = 5
_CELL = 300


@renamed_fields(reading="above_threshold")
@dataclass(frozen=True)
class Explanation:
    """One description of one vector.

    Attributes:
        source: the prompt that the vector was read from, or ``vector 3``; ``null vector`` for the null vector.
        site: where it was read; empty for a vector that was passed as an array.
        position: token position from the prompt's first; -1 for a vector that was passed as an array.
        sample: number of the sample, from 0.
        description: the text that the model generated.
        log_prob: mean log-probability of its tokens given the vector, in nats per token.
        evidence: the log-likelihood ratio per token of the description, vector against null vector, in nats per token.
            Near zero, the description is a guess. NaN for an empty description.
        above_threshold: whether the evidence reaches the threshold that the adapter was calibrated with (see
            `calibrate_threshold`), which controls seldom reach. With False the adapter abstains. None where the adapter
            has no threshold, or one that does not apply, to a sample for example (see `EvidenceThreshold.applies`).
        scale: factor that the vector was multiplied by in the adapter.
        token: text of the token at the position; empty for a vector that was passed as an array.
        confidence: the probability that the description is right, from 0 to 1: that it names the word of its token, or,
            at the last token of a chat prompt, what the turn is about (see `ConfidenceModel`). None where the adapter
            was not calibrated for such vectors and such a sampling.
    """

    source: str
    site: str
    position: int
    sample: int
    description: str
    log_prob: float
    evidence: float
    above_threshold: bool | None
    scale: float
    token: str = ""
    confidence: float | None = None


class Explanations(Sequence[Explanation]):
    """Descriptions, ordered by source, site, position, scale and sample.

    Example:
        >>> for explanation in self_explain("Tell me about baseball.", model=model):
        ...     print(explanation.description, explanation.evidence)
    """

    def __init__(self, rows: Sequence[Explanation]) -> None:
        self._rows = tuple(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        return Explanations(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __iter__(self) -> Iterator[Explanation]:
        return iter(self._rows)

    def best(self) -> Explanations:
        """For each vector the description with the highest confidence, or evidence where one has no confidence.

        Example:
            >>> self_explain("Tell me about baseball.", sampling=Sampling(n=6)).best()
        """
        by_vector: dict[tuple[str, str, int], list[Explanation]] = {}
        for row in self._rows:
            by_vector.setdefault((row.source, row.site, row.position), []).append(row)
        return Explanations([_best(rows) for rows in by_vector.values()])

    def to_df(self) -> pd.DataFrame:
        """A data frame with the columns of `Explanation`, one row per description."""
        return pd.DataFrame([asdict(row) for row in self._rows], columns=list(COLUMNS))

    def to_text(self, width: int = 80) -> str:
        """A table for a terminal of this width, of all rows."""
        shown = self.telling_columns()
        return text_table(
            _headings(shown), ([_cell(row, name) for name in shown] for row in self._rows), _NUMBERS, width
        )

    def __repr__(self) -> str:
        head = f"{len(self)} explanation{'s' if len(self) != 1 else ''}"
        if not self._rows:
            return head
        shown, rows = self.telling_columns(), self._rows
        ends = [*rows[:_END_ROWS], None, *rows[-_END_ROWS:]] if len(rows) > _TEXT_ROWS else rows
        cells = (["…"] * len(shown) if row is None else [_cut(_cell(row, name)) for name in shown] for row in ends)
        more = f"\n{len(rows) - len(ends) + 1:,} more: see to_df() or to_text()" if len(rows) > _TEXT_ROWS else ""
        return f"{head}\n{text_table(_headings(shown), cells, _NUMBERS)}{more}"

    def _repr_html_(self) -> str:
        shown, first = self.telling_columns(), self._rows[:_HTML_ROWS]
        table = html_table(_headings(shown), ([_cell(row, name) for name in shown] for row in first), _NUMBERS)
        more = len(self) - len(first)
        rest = f"{more:,} more rows: see to_df() or a report. " if more else ""
        return (
            f"{table}<small>{rest}evidence: nats per token for these words, above what the null vector gives them; "
            "near zero the description is a guess; confidence: the probability that "
            "it names the token's word, or at the end of a turn its topic; abstains: controls without meaning reach "
            "as much</small>"
        )

    def telling_columns(self) -> list[str]:
        """The columns worth the space: those in which rows of one source differ, and the verdict where one is False."""
        sources = {row.source for row in self._rows}
        columns = {"description", "evidence"} | {
            name
            for name in ("site", "position", "sample", "scale")
            if len({(row.source, getattr(row, name)) for row in self._rows}) > len(sources)
        }
        if "position" in columns and any(row.token for row in self._rows):
            columns.add("token")
        if len(sources) > 1 or "token" not in columns:
            columns.add("source")
        if any(row.confidence is not None for row in self._rows):
            columns.add("confidence")
        if any(row.above_threshold is False for row in self._rows):
            columns.add("above_threshold")
        return [name for name in COLUMNS if name in columns]


def _best(rows: Sequence[Explanation]) -> Explanation:
    confidences = [row.confidence for row in rows]
    if None not in confidences:
        return max(rows, key=lambda row: row.confidence or 0.0)
    return max(rows, key=lambda row: -math.inf if math.isnan(row.evidence) else row.evidence)


def _headings(columns: Sequence[str]) -> list[str]:
    return [_HEADINGS.get(name, name) for name in columns]


def _cell(row: Explanation, name: str) -> str:
    value = getattr(row, name)
    if name == "token":
        return value.replace("\n", "\\n")  # one row per token
    if name in ("log_prob", "evidence"):
        return f"{round(value, 2) + 0.0:.2f}"  # no minus before a zero
    if name == "confidence":
        return "" if value is None else f"{100 * value:.0f}%"
    if name == "above_threshold":
        return "abstains" if value is False else ""
    return f"{value:g}" if name == "scale" else str(value)


def _cut(cell: str) -> str:
    return cell if len(cell) <= _CELL else f"{cell[:_CELL]} … ({len(cell):,} characters)"
