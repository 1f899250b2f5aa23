"""The driver: runs any evaluation of an adapter, takes finished results as they are, and writes the results file."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp_toolkit.adapters import Adapter
from interp_toolkit.deprecation import warn_renamed
from interp_toolkit.engines import require_same_model
from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.evaluation.context import EvalContext
from interp_toolkit.evaluation.names import EVALUATIONS, OLD_NAMES
from interp_toolkit.results import finished_result, make_result, write_result


@dataclass(frozen=True)
class Evaluation:
    """A measurement of an adapter on held-out titles or prompts.

    Attributes:
        settings: from a context and an adapter to all settings that decide the result; it must not do long work.
        measure: from a context and an adapter to what the results file holds beside settings and versions: ``tables``,
            perhaps ``failed`` rows with a ``reason``, and any further keys. Long work inside it should be cached, so
            that it goes on after an interruption.

    Example:
        >>> lengths = Evaluation(
        ...     settings=lambda context, adapter: context.facts | dict(task="lengths", adapter=adapter.digest),
        ...     measure=lambda context, adapter: dict(tables=dict(lengths=length_table(context, adapter))),
        ... )
        >>> run_evaluation(lengths, context, adapter, "lengths.json")
    """

    settings: Callable[[EvalContext, Adapter], dict[str, Any]]
    measure: Callable[[EvalContext, Adapter], dict[str, Any]]


def run_evaluation(
    evaluation: str | Evaluation, context: EvalContext, adapter: Adapter, path: str | Path
) -> dict[str, Any]:
    """Run an evaluation and write its result; a finished result with the same settings is returned as it is.

    Args:
        evaluation: one of `EVALUATIONS` by name, or your own.
        context: titles, model and index.
        adapter: with its contract.
        path: the results file.

    Returns:
        what the file holds, see `interp_toolkit.results`.

    Raises:
        ContractError: the context's engine runs another model than the adapter's.
        InterpToolkitError: an unknown name, an adapter without contract or site, or too few titles.
        FileFormatError: the file is there and holds something else.

    Example:
        >>> result = run_evaluation("controls", EvalContext("topics.jsonl.gz", model=model), adapter, "controls.json")
        >>> pd.DataFrame(result["tables"]["controls"])
    """
    chosen = evaluation if isinstance(evaluation, Evaluation) else find_evaluation(evaluation)
    settings = chosen.settings(context, adapter)
    if (result := finished_result(path, settings)) is not None:
        return result
    # Before adapters without a probe, such as untrained ones, are measured too.
    require_same_model(context.engine, adapter)
    result = make_result(settings, context.versions, **chosen.measure(context, adapter))
    write_result(path, result)
    return result


def find_evaluation(name: str) -> Evaluation:
    """Return an evaluation by its name.

    Raises:
        InterpToolkitError: the name is unknown.
    """
    if name in OLD_NAMES:
        warn_renamed(f"the evaluation {name!r}", repr(OLD_NAMES[name]))
        name = OLD_NAMES[name]
    if name not in EVALUATIONS:
        raise InterpToolkitError(f"expected an evaluation, one of {', '.join(EVALUATIONS)}, got {name!r}")
    return importlib.import_module(f"interp_toolkit.evaluation.{name}").EVALUATION
