"""Line charts of data frames with intervals: losses, recall, coverage, scaling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.sites import Site
from interp_toolkit.tables import escaped
from interp_toolkit.views.charts import COLOURS, styled
from interp_toolkit.views.frames import need, numbers
from interp_toolkit.views.libraries import plotly_graphs

_INTERVAL = ("low", "high")
# Up to this many points the horizontal axis has a tick at each.
_FEW = 8


def line_chart(
    frame: pd.DataFrame,
    x: str,
    y: str,
    *,
    group: str | None = None,
    title: str = "Chart",
    x_title: str = "",
    y_title: str = "",
    log_x: bool = False,
) -> Any:
    """Draw one column by another as lines, with a band from ``low`` to ``high`` where the frame has these columns.

    Args:
        frame: required columns: those that ``x`` and ``y`` name. Optional: the one that ``group`` names, ``low`` and
            ``high`` (an interval), ``n`` (shown beside the pointer).
        x: the column of the horizontal axis.
        y: the column of the vertical axis.
        group: the column whose values get one line each; the frame may lack it.
        title: title of the figure.
        x_title: title of the horizontal axis; by default ``x``.
        y_title: title of the vertical axis; by default ``y``.
        log_x: whether the horizontal axis is logarithmic, where all its values are positive.

    Returns:
        a plotly figure.

    Raises:
        InterpToolkitError: plotly is not installed, a column is missing or holds no numbers, or there is no row.
    """
    graphs = plotly_graphs()
    need(frame, (x, y), "this curve")
    _require_rows(frame, title)
    figure = graphs.Figure()
    for number, (name, rows) in enumerate(_groups(frame, group)):
        rows = rows.sort_values(x, kind="stable")
        colour = COLOURS[number % len(COLOURS)]
        across = numbers(rows[x].tolist(), f"{x!r} of the curve")
        if set(_INTERVAL) <= set(rows):
            band = dict(
                x=across, mode="lines", line=dict(width=0), hoverinfo="skip", showlegend=False, legendgroup=name
            )
            figure.add_scatter(y=numbers(rows["high"].tolist(), "'high' of the curve"), **band)
            fill = dict(
                fill="tonexty", fillcolor=f"rgba({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))}, 0.2)"
            )
            figure.add_scatter(y=numbers(rows["low"].tolist(), "'low' of the curve"), **fill, **band)
        figure.add_scatter(
            x=across,
            y=numbers(rows[y].tolist(), f"{y!r} of the curve"),
            mode="lines+markers",
            name=escaped(name or y),
            legendgroup=name,
            showlegend=bool(name),
            line=dict(color=colour),
            customdata=_hover_data(rows),
            hovertemplate=_hover_template("%{x}", "%{y:.3g}", rows),
        )
    positive = log_x and bool((frame[x] > 0).all())
    styled(figure, title, _range_text(frame, title, y, x), frame.reset_index(drop=True), x_title or x, y_title or y)
    figure.update_xaxes(type="log" if positive else "linear", zeroline=False)
    # With few points, ticks at powers of ten would not show where they are.
    if positive and len(set(frame[x].tolist())) <= _FEW:
        figure.update_xaxes(
            tickvals=(ticks := sorted({float(value) for value in frame[x]})),
            ticktext=[_size_text(tick) for tick in ticks],
        )
    return figure


def layer_recall(frame: pd.DataFrame, title: str = "Recall by layer") -> Any:
    """Draw recall by the layer that is read, with `line_chart`.

    The frame has the columns ``layer`` (or ``site``) and ``value``, and may have ``measure``: one line per measure.
    """
    if "layer" not in frame and "site" in frame:
        frame = frame.assign(layer=[Site.parse(site).layer for site in frame["site"]])
    return line_chart(frame, "layer", "value", group="measure", title=title, y_title="recall")


def learning_curve(frame: pd.DataFrame, title: str = "Learning curve") -> Any:
    """Draw a value by the number of training examples, with `line_chart`.

    The frame has the columns ``examples`` and ``value``, and may have ``measure``: one line per measure.
    """
    return line_chart(frame, "examples", "value", group="measure", title=title, x_title="training examples", log_x=True)


def coverage_curve(frame: pd.DataFrame, title: str = "Coverage against accuracy") -> Any:
    """Draw accuracy by the share of descriptions with the highest evidence, with `line_chart`.

    The frame has the columns ``coverage`` and ``accuracy``, and may have ``right`` (which descriptions count as
    right): one line per criterion.
    """
    x_title = "share of descriptions, highest evidence first"
    return line_chart(frame, "coverage", "accuracy", group="right", title=title, x_title=x_title)


def scaling_curve(frame: pd.DataFrame, title: str = "Scaling") -> Any:
    """Draw a value by the size of the model, with `line_chart`.

    The frame has the columns ``parameters`` and ``value``, and may have ``source``: one line per source.
    """
    return line_chart(
        frame, "parameters", "value", group="source", title=title, x_title="parameters of the model", log_x=True
    )


def scale_sweep(frame: pd.DataFrame, value: str = "value", title: str = "Scale sweep") -> Any:
    """Draw a value by the factor on the vector, with `line_chart`.

    Args:
        frame: required columns ``scale`` and the one that ``value`` names; optional ``measure``: one line per measure.
        value: the column to draw: ``value``, ``loss``, ``mrr``, ...
        title: title of the figure.
    """
    return line_chart(frame, "scale", value, group="measure", title=title, log_x=True)


def loss_curves(logs: pd.DataFrame | Mapping[str, pd.DataFrame], title: str = "Loss in training") -> Any:
    """Draw training and validation loss by step, and the loss of the shuffled control where the log has it.

    Args:
        logs: the log of a run as `read_log` returns it, or several logs by the name of their run. Required columns:
            ``step``, and ``val_loss`` or ``loss``. Optional: ``train_loss`` (mean since the last validation) and
            ``shuffled_loss``. Losses are in nats per token.
        title: title of the figure.

    Returns:
        a plotly figure.

    Raises:
        InterpToolkitError: plotly is not installed, ``step`` is missing, or no log has a loss.
    """
    graphs = plotly_graphs()
    figure = graphs.Figure()
    log_by_run = {"": logs} if isinstance(logs, pd.DataFrame) else dict(logs)
    series = []
    for number, (run, log) in enumerate(log_by_run.items()):
        need(log, ("step",), "loss_curves")
        training = "train_loss" if "train_loss" in log else "loss"
        kinds = (
            (training, "training", "dot"),
            ("val_loss", "validation", "solid"),
            ("shuffled_loss", "other vectors", "dash"),
        )
        for index, (column, kind, dash) in enumerate(kinds):
            rows = log.dropna(subset=[column]) if column in log else log.head(0)
            if rows.empty:
                continue
            name = f"{run}: {kind}" if run else kind
            colour = COLOURS[(number if len(log_by_run) > 1 else index) % len(COLOURS)]
            figure.add_scatter(
                x=rows["step"].tolist(),
                y=(values := numbers(rows[column].tolist(), f"{column!r} of loss_curves")),
                name=escaped(name),
                mode="lines+markers" if len(rows) < 40 else "lines",
                line=dict(dash=dash, color=colour),
            )
            series.append(pd.DataFrame(dict(series=name, step=rows["step"].tolist(), loss=values)))
    if not series:
        raise InterpToolkitError(
            "expected a log with the columns step and val_loss, train_loss or loss; it has no loss"
        )
    table = pd.concat(series, ignore_index=True)
    ends = [f"{x['series'].iloc[0]} ends at {x['loss'].iloc[-1]:.2f}" for x in series if x["loss"].iloc[-1] is not None]
    return styled(figure, title, f"{title}: {'; '.join(ends)}.", table, "step", "nats per token")


def adapter_family(frame: pd.DataFrame, title: str = "The adapter family") -> Any:
    """Draw a value of each adapter, as points with their intervals.

    Args:
        frame: required columns ``adapter`` (a name) and ``value``; optional ``measure`` (one colour per measure),
            ``low`` and ``high`` (the interval, drawn as error bars), ``n``.
        title: title of the figure.

    Returns:
        a plotly figure.

    Raises:
        InterpToolkitError: plotly is not installed, a column is missing, or there is no row.
    """
    graphs = plotly_graphs()
    need(frame, ("adapter", "value"), "adapter_family")
    _require_rows(frame, title)
    figure = graphs.Figure()
    for name, rows in _groups(frame, "measure"):
        values = numbers(rows["value"].tolist(), "'value' of adapter_family")
        figure.add_scatter(
            x=values,
            y=[escaped(str(x), 60) for x in rows["adapter"]],
            mode="markers",
            name=escaped(name or "value"),
            marker=dict(size=10),
            error_x=_error_bars(rows, values),
            customdata=_hover_data(rows),
            hovertemplate=_hover_template("%{y}", "%{x:.3g}", rows),
        )
    figure.update_yaxes(autorange="reversed", type="category")
    styled(figure, title, _range_text(frame, title, "value", "adapter"), frame.reset_index(drop=True), "value", "")
    return figure.update_layout(height=max(260, 150 + 40 * frame["adapter"].nunique()))


def _size_text(value: float) -> str:
    """Write a number as the size of a model: 1.7B, 135M."""
    for size, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:g}"


def _require_rows(frame: pd.DataFrame, title: str) -> None:
    if frame.empty:
        raise InterpToolkitError(f"expected at least one row to draw {title!r}, got none")


def _groups(frame: pd.DataFrame, by: str | None) -> list[tuple[str, pd.DataFrame]]:
    return [(str(name), x) for name, x in frame.groupby(by, sort=False)] if by in frame else [("", frame)]


def _error_bars(rows: pd.DataFrame, values: list[float | None]) -> dict[str, Any] | None:
    if not set(_INTERVAL) <= set(rows):
        return None
    low, high = (numbers(rows[name].tolist(), f"{name!r} of the points") for name in _INTERVAL)
    up = [None if x is None or a is None else a - x for x, a in zip(values, high)]
    down = [None if x is None or a is None else x - a for x, a in zip(values, low)]
    return dict(type="data", symmetric=False, array=up, arrayminus=down, thickness=1.5)


def _hover_data(rows: pd.DataFrame) -> list[list[Any]]:
    shown = [name for name in (*_INTERVAL, "n") if name in rows]
    return rows[shown].astype(object).where(rows[shown].notna(), None).values.tolist()


def _hover_template(at: str, value: str, rows: pd.DataFrame) -> str:
    shown = [name for name in (*_INTERVAL, "n") if name in rows]
    place = {name: i for i, name in enumerate(shown)}
    text = f"{at}: {value}"
    if set(_INTERVAL) <= set(place):
        text += f" (%{{customdata[{place['low']}]:.3g}} to %{{customdata[{place['high']}]:.3g}})"
    return text + (f", n = %{{customdata[{place['n']}]}}" if "n" in place else "")


def _range_text(frame: pd.DataFrame, title: str, value: str, by: str) -> str:
    rows = frame.dropna(subset=[value])
    if rows.empty:
        return f"{title}: no value."
    low, high = rows.loc[rows[value].idxmin()], rows.loc[rows[value].idxmax()]
    return f"{title}: {value} from {low[value]:.3g} at {by} {low[by]} to {high[value]:.3g} at {by} {high[by]}."
