"""Curves: losses, recall, coverage, scaling, each with its interval."""

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
_FEW = 8


def loss_curves(logs: pd.DataFrame | Mapping[str, pd.DataFrame], title: str = "Loss in training") -> Any:
    """Training and validation loss by step, and the loss with other vectors where the log has it.

    Args:
        logs: a run's log as `read_log` gives it, or several by the name of their run. Required: ``step`` and
            ``val_loss`` or ``loss``; optional: ``train_loss`` (mean since the last validation), ``shuffled_loss``.
        title: of the figure.

    Returns:
        a plotly figure.

    Raises:
        InterpToolkitError: plotly is not installed, or no log has a loss.
    """
    graphs = plotly_graphs()
    figure = graphs.Figure()
    named = {"": logs} if isinstance(logs, pd.DataFrame) else dict(logs)
    told = []
    for number, (run, log) in enumerate(named.items()):
        need(log, ("step",), "loss_curves")
        training = "train_loss" if "train_loss" in log else "loss"
        kinds = (
            (training, "training", "dot"),
            ("val_loss", "validation", "solid"),
            ("shuffled_loss", "other vectors", "dash"),
        )
        for at, (column, kind, dash) in enumerate(kinds):
            rows = log.dropna(subset=[column]) if column in log else log.head(0)
            if rows.empty:
                continue
            name = f"{run}: {kind}" if run else kind
            colour = COLOURS[(number if len(named) > 1 else at) % len(COLOURS)]
            figure.add_scatter(
                x=rows["step"].tolist(),
                y=(values := numbers(rows[column].tolist(), f"{column!r} of loss_curves")),
                name=escaped(name),
                mode="lines+markers" if len(rows) < 40 else "lines",
                line=dict(dash=dash, color=colour),
            )
            told.append(pd.DataFrame(dict(series=name, step=rows["step"].tolist(), loss=values)))
    if not told:
        raise InterpToolkitError(
            "expected a log with the columns step and val_loss, train_loss or loss; it has no loss"
        )
    table = pd.concat(told, ignore_index=True)
    ends = [f"{x['series'].iloc[0]} ends at {x['loss'].iloc[-1]:.2f}" for x in told if x["loss"].iloc[-1] is not None]
    return styled(figure, title, f"{title}: {'; '.join(ends)}.", table, "step", "nats a token")


def layer_recall(frame: pd.DataFrame, title: str = "Recall by layer") -> Any:
    """Recall by the layer that is read.

    Args:
        frame: required columns ``layer`` (or ``site``) and ``value``; optional ``measure`` (a line for each),
            ``low`` and ``high`` (the interval, drawn as a band), ``n``.
        title: of the figure.

    Returns:
        a plotly figure.

    Raises:
        InterpToolkitError: plotly is not installed, a column is missing, or there is no row.
    """
    if "layer" not in frame and "site" in frame:
        frame = frame.assign(layer=[Site.parse(site).layer for site in frame["site"]])
    return _lines(frame, "layer", "value", "measure", title, "layer", "recall")


def learning_curve(frame: pd.DataFrame, title: str = "Learning curve") -> Any:
    """A value by how much was learnt from.

    Args:
        frame: required columns ``examples`` and ``value``; optional ``measure`` (a line for each),
            ``low`` and ``high`` (the interval, drawn as a band), ``n``.
        title: of the figure.

    Returns:
        a plotly figure.

    Raises:
        InterpToolkitError: plotly is not installed, a column is missing, or there is no row.
    """
    return _lines(frame, "examples", "value", "measure", title, "training examples", "value", logarithmic=True)


def coverage_curve(frame: pd.DataFrame, title: str = "Coverage against accuracy") -> Any:
    """How right descriptions are when only the most evident are kept; see `coverage_accuracy`.

    Args:
        frame: required columns ``coverage`` and ``accuracy``; optional ``right`` (what counts as right; a line each),
            ``low`` and ``high`` (the interval, drawn as a band), ``n``.
        title: of the figure.

    Returns:
        a plotly figure.

    Raises:
        InterpToolkitError: plotly is not installed, a column is missing, or there is no row.
    """
    return _lines(frame, "coverage", "accuracy", "right", title, "share kept, the most evident first", "accuracy")


def scaling_curve(frame: pd.DataFrame, title: str = "Scaling") -> Any:
    """A value by the size of the model; see `scaling_table`, of one measure.

    Args:
        frame: required columns ``parameters`` and ``value``; optional ``source`` (a line for each),
            ``low`` and ``high`` (the interval, drawn as a band), ``n``.
        title: of the figure.

    Returns:
        a plotly figure.

    Raises:
        InterpToolkitError: plotly is not installed, a column is missing, or there is no row.
    """
    return _lines(frame, "parameters", "value", "source", title, "parameters of the model", "value", logarithmic=True)


def scale_sweep(frame: pd.DataFrame, value: str = "value", title: str = "Scale sweep") -> Any:
    """A value by the factor on the vector.

    Args:
        frame: required columns ``scale`` and the one named by ``value``; optional ``measure`` (a line for each),
            ``low`` and ``high`` (the interval, drawn as a band), ``n``.
        value: the column to draw: ``value``, ``loss``, ``mrr``, ...
        title: of the figure.

    Returns:
        a plotly figure.

    Raises:
        InterpToolkitError: plotly is not installed, a column is missing, or there is no row.
    """
    return _lines(frame, "scale", value, "measure", title, "scale", value, logarithmic=True)


def adapter_family(frame: pd.DataFrame, title: str = "The adapter family") -> Any:
    """A value of each adapter, as points with their intervals.

    Args:
        frame: required columns ``adapter`` (its name) and ``value``; optional ``measure`` (a colour for each), ``low``
            and ``high`` (the interval, drawn as error bars), ``n``.
        title: of the figure.

    Returns:
        a plotly figure.

    Raises:
        InterpToolkitError: plotly is not installed, a column is missing, or there is no row.
    """
    graphs = plotly_graphs()
    need(frame, ("adapter", "value"), "adapter_family")
    _check(frame, title)
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
            customdata=_further(rows),
            hovertemplate=_beside("%{y}", "%{x:.3g}", rows),
        )
    figure.update_yaxes(autorange="reversed", type="category")
    made = styled(figure, title, _about(frame, title, "value", "adapter"), frame.reset_index(drop=True), "value", "")
    return made.update_layout(height=max(260, 150 + 40 * frame["adapter"].nunique()))


def _lines(
    frame: pd.DataFrame, x: str, y: str, by: str, title: str, x_title: str, y_title: str, logarithmic: bool = False
) -> Any:
    """Lines of ``y`` by ``x``, one for each value of ``by``, with a band from ``low`` to ``high``."""
    graphs = plotly_graphs()
    need(frame, (x, y), "this curve")
    _check(frame, title)
    figure = graphs.Figure()
    for number, (name, rows) in enumerate(_groups(frame, by)):
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
            customdata=_further(rows),
            hovertemplate=_beside("%{x}", "%{y:.3g}", rows),
        )
    positive = logarithmic and bool((frame[x] > 0).all())
    styled(figure, title, _about(frame, title, y, x), frame.reset_index(drop=True), x_title, y_title)
    figure.update_xaxes(type="log" if positive else "linear", zeroline=False)
    # Between few points that far apart, an axis of powers says nothing of where they are.
    if positive and len(set(frame[x].tolist())) <= _FEW:
        figure.update_xaxes(
            tickvals=(at := sorted({float(value) for value in frame[x]})), ticktext=[_round(value) for value in at]
        )
    return figure


def _round(value: float) -> str:
    """A number as models' sizes are told: 1.7B, 135M."""
    for size, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:g}"


def _check(frame: pd.DataFrame, title: str) -> None:
    if frame.empty:
        raise InterpToolkitError(f"expected at least one row to draw {title!r}, got none")


def _groups(frame: pd.DataFrame, by: str) -> list[tuple[str, pd.DataFrame]]:
    return [(str(name), x) for name, x in frame.groupby(by, sort=False)] if by in frame else [("", frame)]


def _error_bars(rows: pd.DataFrame, values: list[float | None]) -> dict[str, Any] | None:
    if not set(_INTERVAL) <= set(rows):
        return None
    low, high = (numbers(rows[name].tolist(), f"{name!r} of the points") for name in _INTERVAL)
    up = [None if x is None or a is None else a - x for x, a in zip(values, high)]
    down = [None if x is None or a is None else x - a for x, a in zip(values, low)]
    return dict(type="data", symmetric=False, array=up, arrayminus=down, thickness=1.5)


def _further(rows: pd.DataFrame) -> list[list[Any]]:
    shown = [name for name in (*_INTERVAL, "n") if name in rows]
    return rows[shown].astype(object).where(rows[shown].notna(), None).values.tolist()


def _beside(at: str, value: str, rows: pd.DataFrame) -> str:
    shown = [name for name in (*_INTERVAL, "n") if name in rows]
    place = {name: i for i, name in enumerate(shown)}
    text = f"{at}: {value}"
    if set(_INTERVAL) <= set(place):
        text += f" (%{{customdata[{place['low']}]:.3g}} to %{{customdata[{place['high']}]:.3g}})"
    return text + (f", n = %{{customdata[{place['n']}]}}" if "n" in place else "")


def _about(frame: pd.DataFrame, title: str, value: str, by: str) -> str:
    kept = frame.dropna(subset=[value])
    if kept.empty:
        return f"{title}: no value."
    low, high = kept.loc[kept[value].idxmin()], kept.loc[kept[value].idxmax()]
    return f"{title}: {value} from {low[value]:.3g} at {by} {low[by]} to {high[value]:.3g} at {by} {high[by]}."
