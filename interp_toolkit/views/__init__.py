"""Views: functions from data frames to figures or HTML pages. They display nothing themselves."""

from interp_toolkit.views.activations import activation_view
from interp_toolkit.views.charts import chart_view
from interp_toolkit.views.curves import (
    adapter_family,
    coverage_curve,
    layer_recall,
    learning_curve,
    line_chart,
    loss_curves,
    scale_sweep,
    scaling_curve,
)
from interp_toolkit.views.difference import difference_report
from interp_toolkit.views.features import feature_view
from interp_toolkit.views.grid import grid_map
from interp_toolkit.views.page import View
from interp_toolkit.views.report import Section, explanations_report, report
from interp_toolkit.views.results import read_log, results_report
from interp_toolkit.views.table import table_view
from interp_toolkit.views.tokens import token_view

__all__ = [
    "Section",
    "View",
    "activation_view",
    "adapter_family",
    "chart_view",
    "coverage_curve",
    "difference_report",
    "explanations_report",
    "feature_view",
    "grid_map",
    "layer_recall",
    "learning_curve",
    "line_chart",
    "loss_curves",
    "read_log",
    "report",
    "results_report",
    "scale_sweep",
    "scaling_curve",
    "table_view",
    "token_view",
]
