"""Reports: sections of tables, views and charts in one file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from interp_toolkit.deprecation import renamed_arguments, warn_renamed
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.explanations import Explanations
from interp_toolkit.tables import escaped
from interp_toolkit.views.charts import chart_view
from interp_toolkit.views.page import View
from interp_toolkit.views.table import table_body

EVIDENCE = (
    "Evidence is the log-likelihood ratio of a description, given the vector against given nothing, in nats per token. "
    "Near zero, the description is a guess."
)


@dataclass(frozen=True, init=False)
class Section:
    """Content of a report under a heading.

    Attributes:
        title: the heading.
        content: what `report` takes, except sections.

    Example:
        >>> Section("Controls", "Shuffled vectors should find nothing.", table)
    """

    title: str
    content: tuple[Any, ...]

    def __init__(self, title: str, *content: Any) -> None:
        object.__setattr__(self, "title", title)
        object.__setattr__(self, "content", content)

    @property
    def parts(self) -> tuple[Any, ...]:
        """The old name of `content`."""
        warn_renamed("Section.parts", "Section.content")
        return self.content


def report(*content: Any, title: str = "Report", about: str = "") -> View:
    """Put tables, figures, views and texts into one page that works offline and holds each library once.

    Args:
        *content: in the order of the page: `Explanations`, data frames, plotly figures, views, texts (one paragraph
            per text), and `Section`s of these under a heading.
        title: title of the page.
        about: a sentence or two below the title.

    Returns:
        the page.

    Raises:
        InterpToolkitError: there is no content, or some of it is of another type.

    Example:
        >>> explanations = self_explain(prompts, model=model)
        >>> report(explanations, Section("Training", loss_curves(read_log("run/log.jsonl")))).save("run.html")
    """
    if not content:
        raise InterpToolkitError(
            "expected something to report on: Explanations, data frames, figures, views or sections"
        )
    blocks, needs, headings = [], frozenset[str](), []
    for item in content:
        items, heading = (item.content, item.title) if isinstance(item, Section) else ((item,), "")
        bodies = [_body(one, heading) for one in items]
        needs = needs.union(*(libraries for _, libraries in bodies))
        text = "".join(body for body, _ in bodies)
        if isinstance(item, Section):
            name = f"section-{len(headings) + 1}"
            headings.append((name, heading))
            text = f'<h2 id="{name}">{escaped(heading)}</h2>{text}'
        blocks.append(f"<section>{text}</section>")
    links = "".join(f'<li><a href="#{name}">{escaped(heading)}</a></li>' for name, heading in headings)
    contents = f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if len(headings) > 1 else ""
    introduction = f"<p>{escaped(about, 2000)}</p>" if about else ""
    head = f"<header><h1>{escaped(title)}</h1>{introduction}{contents}</header>"
    return View(title, head + "".join(blocks), needs, height=640)


@renamed_arguments(found="explanations")
def explanations_report(explanations: Explanations, title: str = "What the model says") -> View:
    """Make the report of ``interp-toolkit explain --html``: all descriptions, with the meaning of evidence.

    Args:
        explanations: what `self_explain` returns.
        title: title of the page.

    Returns:
        the page.
    """
    count = len({row.source for row in explanations})
    plurals = ["" if number == 1 else "s" for number in (len(explanations), count)]
    about = f"{len(explanations):,} description{plurals[0]} of {count:,} source{plurals[1]}."
    return report(explanations, title=title, about=f"{about} {EVIDENCE}")


def _body(item: Any, heading: str) -> tuple[str, frozenset[str]]:
    """Write the HTML of one item below a heading; return it with the libraries it needs."""
    if isinstance(item, View):
        return item.body, item.needs
    if isinstance(item, Explanations):
        frame: Any = item.to_df()
        verdicts = ["abstains" if x is False else "above threshold" if x else None for x in frame["above_threshold"]]
        shown = {*item.telling_columns(), "source", "log_prob", "above_threshold"}
        frame = frame.assign(above_threshold=verdicts)[[name for name in frame.columns if name in shown]]
        # A stack's name is long: where all rows are of one, it stands above the table.
        sites = {row.site for row in item if row.site}
        where = f"<p>Read at {escaped(sites.pop())}.</p>" if "site" not in shown and len(sites) == 1 else ""
        table = table_body(frame.rename(columns={"above_threshold": "verdict"}), "Descriptions")
        return where + table, frozenset()
    if isinstance(item, pd.DataFrame):
        return table_body(item, heading or "Table", caption=not heading), frozenset()
    if isinstance(item, str):
        return f"<p>{escaped(item, 20_000)}</p>", frozenset()
    if hasattr(item, "to_plotly_json"):
        view = chart_view(item)
        return view.body, view.needs
    raise InterpToolkitError(
        f"a report takes Explanations, data frames, plotly figures, views, texts and sections of these, got "
        f"{type(item).__name__}"
    )
