"""An edition of the course for the class: no solutions, no outputs, no page for teachers.

    make handout

writes `build/handout`, in which the notebooks find their figures and stored results as they do here.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
ANSWER = re.compile(r"<details><summary>(?!Hint</summary>).*?</details>\n?", re.DOTALL)  # all that is folded but hints


def unsolved(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook itself, without what a learner shall find out."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        else:
            cell.source = ANSWER.sub("", cell.source).rstrip()
    return notebook


def write(folder: Path) -> None:
    """Writes the edition into a folder."""
    left_out = shutil.ignore_patterns("TEACHING.md", ".ipynb_checkpoints", "*.tmp")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=left_out, dirs_exist_ok=True)
    for part in ("results", "students"):
        if (ROOT / "data" / part).exists():
            trials = shutil.ignore_patterns("trials")
            shutil.copytree(ROOT / "data" / part, folder / "data" / part, ignore=trials, dirs_exist_ok=True)
    shutil.copy(ROOT / "data" / "README.md", folder / "data")
    for path in sorted((folder / "notebooks").glob("*.ipynb")):
        nbformat.write(unsolved(nbformat.read(path, as_version=4)), path)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
