"""Reports: sections of tables, views and charts in one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.explanations import Explanations
from interp_toolkit.tables import escaped
from interp_toolkit.views.charts import chart_view
from interp_toolkit.views.page import View
from interp_toolkit.views.table import table_body

EVIDENCE = (
    "Evidence says how much more probable the vector makes these words than nothing does, in nats a token. "
    "Near zero, the description is a guess."
)


@dataclass(frozen=True, init=False)
class Section:
    """Parts of a report under a heading.

    Attributes:
        title: the heading.
        parts: what `report` takes, sections apart.

    Example:
        >>> Section("Controls", "Shuffled vectors should find nothing.", table)
    """

    title: str
    parts: tuple[Any, ...]

    def __init__(self, title: str, *parts: Any) -> None:
        object.__setattr__(self, "title", title)
        object.__setattr__(self, "parts", parts)


def report(*parts: Any, title: str = "Report", about: str = "") -> View:
    """One page of several parts, which needs no network and takes each library along once.

    Args:
        parts: in the order they are to stand: `Explanations`, data frames, plotly figures, views, texts (a paragraph
            each), and `Section`s of these under a heading.
        title: of the page.
        about: a sentence or two below the title.

    Raises:
        InterpToolkitError: a part of another kind, or none.

    Example:
        >>> found = self_explain(prompts, model=model)
        >>> report(found, Section("Training", loss_curves(read_log("run/log.jsonl"))), title="My run").save("run.html")
    """
    if not parts:
        raise InterpToolkitError(
            "expected something to report on: Explanations, data frames, figures, views or sections"
        )
    blocks, needs, headings = [], frozenset[str](), []
    for part in parts:
        inner, heading = (part.parts, part.title) if isinstance(part, Section) else ((part,), "")
        bodies = [_body(one, heading) for one in inner]
        needs = needs.union(*(own for _, own in bodies))
        text = "".join(body for body, _ in bodies)
        if isinstance(part, Section):
            name = f"section-{len(headings) + 1}"
            headings.append((name, part.title))
            text = f'<h2 id="{name}">{escaped(part.title)}</h2>{text}'
        blocks.append(f"<section>{text}</section>")
    links = "".join(f'<li><a href="#{name}">{escaped(told)}</a></li>' for name, told in headings)
    contents = f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if len(headings) > 1 else ""
    told = f"<p>{escaped(about, 2000)}</p>" if about else ""
    head = f"<header><h1>{escaped(title)}</h1>{told}{contents}</header>"
    return View(title, head + "".join(blocks), needs, height=640)


def explanations_report(found: Explanations, title: str = "What the model says") -> View:
    """The report of ``interp-toolkit explain --html``: all descriptions, with what evidence means.

    Args:
        found: as `self_explain` gives them.
        title: of the page.
    """
    count = len({row.source for row in found})
    about = (
        f"{len(found):,} description{'' if len(found) == 1 else 's'} of {count:,} source{'' if count == 1 else 's'}."
    )
    return report(found, title=title, about=f"{about} {EVIDENCE}")


def _body(part: Any, heading: str) -> tuple[str, frozenset[str]]:
    """The HTML of a part below a heading, and the libraries it needs."""
    if isinstance(part, View):
        return part.body, part.needs
    if isinstance(part, Explanations):
        frame = part.to_df()
        frame["reading"] = ["no reading" if x is False else "reading" if x else None for x in frame["reading"]]
        return table_body(frame, "Descriptions"), frozenset()
    if isinstance(part, pd.DataFrame):
        return table_body(part, heading or "Table", caption=not heading), frozenset()
    if isinstance(part, str):
        return f"<p>{escaped(part, 20_000)}</p>", frozenset()
    if hasattr(part, "to_plotly_json"):
        view = chart_view(part)
        return view.body, view.needs
    raise InterpToolkitError(
        f"a report takes Explanations, data frames, plotly figures, views, texts and sections of these, got "
        f"{type(part).__name__}"
    )
