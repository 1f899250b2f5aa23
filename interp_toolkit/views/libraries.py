"""The JavaScript libraries that some views embed, each as one script."""

from __future__ import annotations

import importlib
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from interp_toolkit.errors import InterpToolkitError

PLOTLY, CIRCUITSVIS = "plotly", "circuitsvis"
_INSTALL = "pip install 'interp-toolkit[views]'"


def plotly_graphs() -> Any:
    """Import ``plotly.graph_objects``.

    Raises:
        InterpToolkitError: plotly is not installed.
    """
    try:
        return importlib.import_module("plotly.graph_objects")
    except ImportError as error:
        raise InterpToolkitError(f"charts take plotly: {_INSTALL} ({error})") from error


def require_circuitsvis() -> Path:
    """Find the file of circuitsvis that holds its whole JavaScript.

    Raises:
        InterpToolkitError: circuitsvis is not installed, or its installation lacks the file.
    """
    # The package itself is not imported, because its import tests for a network connection.
    spec = find_spec(CIRCUITSVIS)
    places = spec.submodule_search_locations if spec else None
    path = Path(next(iter(places))) / "dist" / "cdn" / "iife.js" if places else None
    if path is None or not path.exists():
        raise InterpToolkitError(f"activations of several features take circuitsvis: {_INSTALL}")
    return path


@cache
def library_script(name: str) -> str:
    """Read the source of a library, ready to stand between script tags.

    Args:
        name: `PLOTLY` or `CIRCUITSVIS`.

    Raises:
        InterpToolkitError: the library is not installed.
    """
    if name == PLOTLY:
        plotly_graphs()
        source = importlib.import_module("plotly.offline").get_plotlyjs()
    else:
        source = require_circuitsvis().read_text(encoding="utf-8")
        source = re.sub(r"//# sourceMappingURL=\S*", "", source)
    # Both libraries hold these tags in JavaScript strings only: the escape hides them from HTML and changes no value.
    return re.sub(r"<(/script|!--|script)", lambda tag: "\\x3c" + tag[1], source, flags=re.IGNORECASE)
