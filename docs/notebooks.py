"""Execute notebooks and write their outputs into them, without progress bars and warnings.

python docs/notebooks.py FILE ...
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from interp_toolkit.files import whole_file


def executed(path: Path) -> nbformat.NotebookNode:
    """A notebook with its outputs, run in its own folder."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=None, kernel_name="python3")
    client.resources = {"metadata": {"path": str(path.parent)}}
    client.execute()
    for cell in notebook.cells:
        # Times, and the machine's description of itself, would change with every run.
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, flush=True)
        notebook = executed(Path(name))
        with whole_file(Path(name)) as draft:
            nbformat.write(notebook, draft)
