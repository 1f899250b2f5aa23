"""The text that an SAE is trained and judged on: passages from a file, and their tokens in rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from interp_toolkit.errors import FileFormatError, InterpToolkitError
from interp_toolkit.json_lines import read_json_lines
from interp_toolkit.tables import brief_repr

_COLUMNS = ["text", "genre", "subgenre", "source", "title", "split"]
_ROW = "a JSON object with a 'text'"


@dataclass(frozen=True)
class TokenRows:
    """Token ids as a model reads them.

    Attributes:
        ids: of each row; the first is the beginning-of-sequence token, where the model has one.
        passage: for each row the number of the text it is from.
    """

    ids: tuple[tuple[int, ...], ...]
    passage: tuple[int, ...]

    __repr__ = brief_repr

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def tokens(self) -> int:
        """The number of tokens that are read: all but the first of each row."""
        return sum(map(len, self.ids)) - len(self)

    def take(self, rows: Sequence[int]) -> TokenRows:
        """These rows, in this order."""
        return TokenRows(tuple(self.ids[i] for i in rows), tuple(self.passage[i] for i in rows))


def read_passages(path: str | Path, split: str | None = None, limit: int | None = None) -> pd.DataFrame:
    """Read passages from JSON Lines, perhaps gzipped.

    Args:
        path: rows with ``text``, and perhaps ``genre``, ``subgenre``, ``source``, ``title`` and ``split``.
        split: take these rows only: ``"train"`` or ``"eval"``.
        limit: take at most so many, from the beginning.

    Returns:
        columns ``text genre subgenre source title split``; what the file does not say is an empty text.

    Raises:
        FileFormatError: missing, cut off, or a row without a text; the text names the line.
        InterpToolkitError: nothing to read.

    Example:
        >>> passages = read_passages("corpus/passages.jsonl.gz", "train")
    """
    path = Path(path).expanduser()
    rows: list[dict[str, str]] = []
    count = 0
    for name, row in read_json_lines(path, "a file of passages", _ROW):
        if limit is not None and len(rows) == limit:
            break
        count += 1
        if passage := _passage(row, name, split):
            rows.append(passage)
    if not rows:
        of = f" of split {split!r}" if split else ""
        raise InterpToolkitError(f"expected at least one passage{of} in {path}, which has {count} lines; got none")
    return pd.DataFrame(rows, columns=_COLUMNS)


def token_rows(tokenizer: Any, texts: Sequence[str], context: int = 256) -> TokenRows:
    """Split texts into rows of tokens; a text longer than a row goes on in further rows, so that nothing is lost.

    Args:
        tokenizer: of the model.
        texts: plain texts; no chat template is put around them.
        context: longest row, in tokens.

    Returns:
        the rows, with the number of each row's text.

    Raises:
        InterpToolkitError: no text with a token in it.
    """
    if context < 2:
        raise InterpToolkitError(f"expected a context of at least 2 tokens, got {context}")
    bos = tokenizer.bos_token_id
    first = () if bos is None else (bos,)
    step = context - len(first)
    ids: list[tuple[int, ...]] = []
    passage: list[int] = []
    encoded = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if len(texts) else []
    for number, text_ids in enumerate(encoded):
        for start in range(0, len(text_ids), step):
            row = (*first, *text_ids[start : start + step])
            if len(row) > 1:  # the first position is never read
                ids.append(row)
                passage.append(number)
    if not ids:
        raise InterpToolkitError(f"expected texts with at least one token, got {len(texts)} texts without any")
    return TokenRows(tuple(ids), tuple(passage))


def _passage(row: dict[str, Any], name: str, split: str | None) -> dict[str, str] | None:
    if not isinstance(row.get("text"), str):
        raise FileFormatError(f"{name}: expected {_ROW}, got {str(row)[:60]!r}")
    if not row["text"].strip() or (split is not None and row.get("split") != split):
        return None
    return {column: str(row.get(column) or "") for column in _COLUMNS}
