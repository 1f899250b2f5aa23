"""The grid: evidence at every layer and position, with the descriptions as hover labels."""

from __future__ import annotations

from typing import Any

import pandas as pd

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.sites import Site
from interp_toolkit.tables import escaped
from interp_toolkit.views.charts import hover_text, styled
from interp_toolkit.views.frames import need, numbers
from interp_toolkit.views.libraries import plotly_graphs

_TOKEN = 16
# From nearly the page's own colour, be it light or dark, to a strong one.
_SCALE = ((0.0, "rgba(46,116,200,0.05)"), (1.0, "rgba(46,116,200,1)"))


def grid_map(cells: pd.DataFrame, *, prompt: int | None = None, title: str | None = None) -> Any:
    """Draw a heat map of evidence by layer and position, with the descriptions of each cell as hover labels.

    The colour shows the highest evidence of a cell's descriptions, in nats per token. A star marks cells with a
    description that names the bridge. Positions with the same token stay separate.

    Args:
        cells: `Grid.cells` or `BridgeEntities.cells`. Required: ``site``, ``position``, ``token``, ``description``,
            ``evidence``. Optional: ``prompt``, ``named`` (whether the description names the bridge).
        prompt: the prompt to draw, a value of the column ``prompt``; not needed where there is only one.
        title: title of the figure.

    Returns:
        a plotly figure.

    Raises:
        InterpToolkitError: plotly is not installed, a column is missing, or no cell is left to draw.
    """
    graphs = plotly_graphs()
    need(cells, ("site", "position", "token", "description", "evidence"), "grid_map")
    rows: Any = _of_prompt(cells, prompt)
    rows = rows.assign(evidence=numbers(rows["evidence"].tolist(), "'evidence' of grid_map"))
    sites = _by_depth([str(site) for site in dict.fromkeys(rows["site"])])
    positions = sorted(rows["position"].unique().tolist())
    tokens = rows.groupby("position")["token"].first().to_dict()
    cell_rows = {key: x for key, x in rows.groupby([rows["site"].astype(str), "position"])}
    best = {key: None if (top := x["evidence"].max()) != top else top for key, x in cell_rows.items()}
    figure = graphs.Figure(
        graphs.Heatmap(
            x=positions,
            y=list(range(len(sites))),
            z=[[best.get((site, at)) for at in positions] for site in sites],
            text=[[_hover_label(cell_rows.get((site, at)), site) for at in positions] for site in sites],
            hovertemplate="%{text}<extra></extra>",
            colorscale=_SCALE,
            colorbar=dict(title=dict(text="evidence", side="right"), thickness=12),
            xgap=1,
            ygap=1,
        )
    )
    named = rows[rows["named"].astype(bool)] if "named" in rows else rows.head(0)
    stars = list(dict.fromkeys(zip(named["site"].astype(str), named["position"].tolist())))
    if stars:
        figure.add_scatter(
            x=[at for _, at in stars],
            y=[sites.index(site) for site, _ in stars],
            mode="markers",
            marker=dict(symbol="star", size=11, color="#f2b134", line=dict(color="#222", width=1)),
            name="names the bridge",
            showlegend=True,
            hoverinfo="skip",
        )
    shown = [name for name in ("site", "position", "token", "description", "evidence", "named") if name in rows]
    about = (
        f"Heat map of evidence at {len(sites)} layers and {len(positions)} positions. Highest: {_highest(rows)}. "
        f"The bridge is named in {len(stars)} cells."
    )
    styled(figure, title or "Evidence by layer and position", about, rows[shown], "", "layer")
    figure.update_xaxes(
        tickvals=positions,
        ticktext=[_tick(tokens[at]) for at in positions],
        tickangle=-55,
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(tickvals=list(range(len(sites))), ticktext=_short_names(sites), showgrid=False, zeroline=False)
    figure.update_layout(height=max(320, 150 + 26 * len(sites)))
    return figure


def _of_prompt(cells: Any, prompt: int | None) -> pd.DataFrame:
    prompts = list(dict.fromkeys(cells["prompt"])) if "prompt" in cells else []
    if prompt is None and len(prompts) > 1:
        raise InterpToolkitError(
            f"the cells are of {len(prompts)} prompts; choose one: grid_map(cells, prompt={prompts[0]})"
        )
    rows = cells if prompt is None or "prompt" not in cells else cells[cells["prompt"] == prompt]
    if rows.empty:
        known = f"; there are prompts {', '.join(map(str, prompts[:10]))}" if prompts else ""
        raise InterpToolkitError(f"expected cells to draw, got none of prompt {prompt}{known}")
    return rows


def _by_depth(names: list[str]) -> list[str]:
    """Sites from the lowest layer; names that are no single site stay in their order."""
    try:
        return sorted(names, key=Site.parse)
    except InterpToolkitError:
        return names


def _short_names(names: list[str]) -> list[str]:
    """Layer numbers where all sites are the same hook point of a block, else their names."""
    try:
        sites = [Site.parse(name) for name in names]
    except InterpToolkitError:
        return [escaped(name, 40) for name in names]
    return [str(site.layer) for site in sites] if len({site.hook for site in sites}) == 1 else names


def _tick(token: str) -> str:
    text = token.replace("\n", "↵").replace("\t", "⇥").strip() or "␣"
    return escaped(text if len(text) <= _TOKEN else f"{text[:_TOKEN]}…")


def _hover_label(rows: pd.DataFrame | None, site: str) -> str:
    if rows is None:
        return ""
    top = rows.sort_values("evidence", ascending=False, kind="stable")
    lines = [
        f"{hover_text(str(text))} <b>{'?' if value != value else f'{value:.2f}'}</b>"
        for text, value in zip(top["description"].tolist()[:4], top["evidence"].tolist())
    ]
    where = f"<b>{_tick(str(top['token'].iloc[0]))}</b> · position {top['position'].iloc[0]} · {escaped(site, 60)}"
    return "<br>".join([where, *lines])


def _highest(rows: Any) -> str:
    if rows["evidence"].isna().all():
        return "none"
    top = rows.loc[rows["evidence"].idxmax()]
    description, site = str(top["description"])[:80], str(top["site"])[:60]
    return f"{top['evidence']:.2f}, “{description}” at {site}, position {top['position']}"
