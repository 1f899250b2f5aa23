"""The libraries that some views take along, each as one script."""

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
    """The module ``plotly.graph_objects``.

    Raises:
        InterpToolkitError: plotly is not installed.
    """
    try:
        return importlib.import_module("plotly.graph_objects")
    except ImportError as error:
        raise InterpToolkitError(f"charts take plotly: {_INSTALL} ({error})") from error


def require_circuitsvis() -> Path:
    """The file of circuitsvis that holds all it draws with.

    Raises:
        InterpToolkitError: circuitsvis is not installed, or comes without the file.
    """
    # The package itself is not imported: it would ask the network whether there is one.
    found = find_spec(CIRCUITSVIS)
    places = found.submodule_search_locations if found else None
    path = Path(next(iter(places))) / "dist" / "cdn" / "iife.js" if places else None
    if path is None or not path.exists():
        raise InterpToolkitError(f"activations of several features take circuitsvis: {_INSTALL}")
    return path


@cache
def library_script(name: str) -> str:
    """The source of a library, ready to stand between script tags.

    Args:
        name: `PLOTLY` or `CIRCUITSVIS`.

    Raises:
        InterpToolkitError: it is not installed.
    """
    if name == PLOTLY:
        plotly_graphs()
        source = importlib.import_module("plotly.offline").get_plotlyjs()
    else:
        source = require_circuitsvis().read_text(encoding="utf-8")
        source = re.sub(r"//# sourceMappingURL=\S*", "", source)
    # Both hold such words in texts of theirs only, where the backslash changes nothing but how HTML reads them.
    return re.sub(r"<(/script|!--|script)", lambda found: "\\x3c" + found[1], source, flags=re.IGNORECASE)
