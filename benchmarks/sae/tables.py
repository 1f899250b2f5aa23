"""The results of SAE labels as tables for a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.arguments import WIDTH
from benchmarks.sae.adapters import transfer_table
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.results import read_result
from interp_toolkit.tables import frame_text

_COLUMNS = ["source", "score", "protocol", "value", "low", "high", "n", "tries", "seed"]


def tables(results: Path) -> str:
    """Every table whose results are in a folder.

    Raises:
        InterpToolkitError: there are none.
    """
    sections = []
    transfer = transfer_table(results)
    if len(transfer):
        sections.append(("what labels cost, in nats per token", transfer))
    path = results / "scores.json"
    if path.exists():
        frames = {name: pd.DataFrame(rows) for name, rows in read_result(path)["tables"].items()}
        for name in ("generation", "detection"):
            scores: Any = frames[name]
            is_mean = scores["what"] == "mean"
            means, gaps = scores[is_mean], scores[~is_mean]
            sections += [(name, means[_COLUMNS]), (f"{name}, {gaps['what'].iloc[0]}", gaps[[*_COLUMNS, "p"]])]
        sections += [("descriptions and labels", frames["agreement"]), ("the SAE", frames["sae"])]
    if not sections:
        raise InterpToolkitError(f"expected results in {results}, and there are none; run without `table`")
    return "\n\n".join(f"{title}\n{frame_text(frame, WIDTH)}" for title, frame in sections)
