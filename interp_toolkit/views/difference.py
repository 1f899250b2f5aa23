"""The page of what a fine-tune changed: descriptions of differences, with the controls beside them."""

from __future__ import annotations

import pandas as pd

from interp_toolkit.views.frames import need
from interp_toolkit.views.page import View
from interp_toolkit.views.report import EVIDENCE, Section, report

_SHOWN = ("what", "source", "token", "size", "description", "evidence", "p_value")
_CONTROLS = ("model", "what", "source", "token", "size", "description", "evidence")
_MEAN = "mean of all tokens"
_P_VALUE = (
    "The p-value is the share of descriptions of controls that have as much evidence, one added to both counts. A "
    "difference that a control reaches as well says nothing of the fine-tune."
)

_NO_PLACEBO = (
    " There is no placebo among the controls: what every fine-tune changes cannot be seen apart from what this one "
    "learnt."
)


def difference_report(table: pd.DataFrame, title: str = "What the fine-tune changed") -> View:
    """Make the page of ``interp-toolkit diff --html``: descriptions of the differences, then those of the controls.

    Args:
        table: what `describe_difference` returns.
        title: title of the page.

    Returns:
        the page.

    Raises:
        InterpToolkitError: a column is missing.

    Example:
        >>> difference_report(describe_difference(base, tuned, prompts)).save("difference.html")
    """
    need(table, dict.fromkeys((*_CONTROLS, *_SHOWN, "control")), "difference_report(table)")
    real, controls = table.loc[~table["control"]], table.loc[table["control"]]
    missing = "" if any(str(model).startswith("placebo") for model in controls["model"]) else _NO_PLACEBO
    means = real.loc[real["what"] == _MEAN, "size"].tolist()
    size = f" The mean difference is {means[0]:.1%} as long as the base's vectors." if means else ""
    return report(
        Section("Differences of the fine-tuned model", _P_VALUE + missing + size, real[list(_SHOWN)]),
        Section(
            "Controls",
            "Differences that mean nothing: between halves of the prompts in the base, and of other fine-tunes.",
            controls[list(_CONTROLS)],
        ),
        title=title,
        about=f"{len(real):,} descriptions of differences, {len(controls):,} of controls. {EVIDENCE}",
    )
