"""Run notebooks from top to bottom and store them as a reader without a kernel needs them.

    make notebooks                                    all of them
    make notebooks NOTEBOOKS=notebooks/01_stpm.ipynb  one

A stored notebook holds the outputs of one run in order, no timestamps and no view of a live widget: JupyterLab would
put "model not found" where every other reader sees the panel's first picture, which is stored beside that view.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PROGRESS_BAR = {WIDGET_VIEW, "text/plain"}  # a widget with no picture beside it: nothing to see without a kernel
LIMIT = 900  # seconds per cell, against hangs; a busy machine is slow
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Leaves out what is only true of the machine, the moment and the kernel of this run."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if set(output.get("data", {})) != PROGRESS_BAR]
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET_VIEW, None)


def run(path: Path) -> None:
    """Runs one notebook in its folder and replaces the file once it has gone through."""
    notebook = nbformat.read(path, as_version=4)
    begin = time.perf_counter()
    resources = {"metadata": {"path": str(path.parent)}}
    options = {"kernel_name": "python3", "store_widget_state": False, "record_timing": False}
    NotebookClient(notebook, timeout=LIMIT, resources=resources, **options).execute()
    seconds = time.perf_counter() - begin
    tidy(notebook)
    beside = path.with_suffix(".tmp")
    nbformat.write(notebook, beside)
    os.replace(beside, path)
    print(f"{path.name}: {seconds:.1f} s, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(Path(name))
