"""What a run tells: JSON Lines in its folder, and a tracking service where one is asked for."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp_toolkit.errors import InterpToolkitError
from interp_toolkit.files import whole_file

_PROJECT = "interp-toolkit"


class RunLog:
    """Events of a run, one JSON object a line: ``start``, ``step``, ``validation``, ``end``, each with its ``step``.

    Args:
        path: the file; None for none.
        tracker: ``"wandb"``, ``"trackio"`` or None.
        step: where the run goes on; what the file tells of later steps is taken out, since they are done again.
        facts: of the run, for its first event and for the tracker.

    Raises:
        InterpToolkitError: the tracker is not installed.
    """

    def __init__(self, path: Path | None, tracker: str | None, step: int, facts: Mapping[str, Any]) -> None:
        self._path = path
        self._tracker = _tracker(tracker)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = _told_until(path, step) if step and path.exists() else []
            with whole_file(path) as draft:
                draft.write_text("".join(kept))
        if self._tracker:
            self._tracker.init(project=_PROJECT, name=path.parent.name if path else None, config=dict(facts))
        self.tell("start", step, **facts)

    def tell(self, event: str, step: int, **values: Any) -> None:
        """Write an event; the tracker gets its numbers."""
        if self._path:
            with open(self._path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(dict(event=event, step=step, **values), ensure_ascii=False) + "\n")
        numbers = {f"{event}/{key}": x for key, x in values.items() if isinstance(x, (int, float))}
        if self._tracker and event != "start":
            self._tracker.log(numbers, step=step)

    def close(self) -> None:
        """End the tracker's run."""
        if self._tracker:
            self._tracker.finish()


def _told_until(path: Path, step: int) -> list[str]:
    """Lines of events up to a step; one that an interruption cut off is no event."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if told["step"] <= step and told["event"] != "end":
            kept.append(line)
    return kept


def _tracker(name: str | None) -> Any:
    if name is None:
        return None
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InterpToolkitError(f"tracker {name!r} is not installed: pip install {name}") from error
