"""What is stored in the notebooks, so that they can be read without a kernel, and how Make runs and opens them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def notebook(request: pytest.FixtureRequest) -> nbformat.NotebookNode:
    return nbformat.read(request.param, as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def test_it_was_run_once_from_top_to_bottom(notebook: nbformat.NotebookNode) -> None:
    assert [cell.execution_count for cell in code(notebook)] == list(range(1, len(code(notebook)) + 1))


def test_no_stored_output_is_an_error_or_a_warning(notebook: nbformat.NotebookNode) -> None:
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert [output.ename for output in outputs if output.output_type == "error"] == []
    assert [o.text for o in outputs if o.output_type == "stream" and "Warning" in o.text] == []


def test_a_panel_is_stored_as_its_picture(notebook: nbformat.NotebookNode) -> None:
    stored = [output.data for cell in code(notebook) for output in cell.outputs if "data" in output]
    assert [data["text/plain"] for data in stored if WIDGET_VIEW in data] == []
    assert "widgets" not in notebook.metadata


def test_it_runs_in_the_kernel_of_any_environment(notebook: nbformat.NotebookNode) -> None:
    assert notebook.metadata.kernelspec.name == "python3"


def test_cells_are_short(notebook: nbformat.NotebookNode) -> None:
    lengths = {cell.source.splitlines()[0]: len(cell.source.splitlines()) for cell in code(notebook)}
    assert {first: length for first, length in lengths.items() if length > 25} == {}


TEXTS = [
    *NOTEBOOKS,
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "data/README.md", "data/results/README.md")),
    *(ROOT / "notebooks" / name for name in ("GLOSSARY.md", "TEACHING.md")),
]
ROOTS = {"kd": "kdlib", "kdlib": "kdlib", "course": "kdlib.course"}


def words(path: Path) -> str:
    """What a notebook or a text says, outputs left aside."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    return "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)


def exists(root: str, names: list[str]) -> bool:
    """Whether a dotted name of kdlib leads to something."""
    here: Any = import_module(root)
    for name in names:
        try:
            here = getattr(here, name) if hasattr(here, name) else import_module(f"{here.__name__}.{name}")
        except (ImportError, AttributeError):
            return False
    return True


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_what_a_text_names_exists(path: Path) -> None:
    text = words(path)
    dotted = set(re.findall(r"(?<![\w./\"'-])(kd|kdlib|course)((?:\.[A-Za-z_]\w*)+)", text))
    assert [root + rest for root, rest in sorted(dotted) if not exists(ROOTS[root], rest[1:].split("."))] == []
    files = set(re.findall(r"(?<![\w/.])((?:kdlib|tests|notebooks|data/results)/[\w./]+\w)", text))
    assert [name for name in sorted(files) if "NAME" not in name and not (ROOT / name).exists()] == []


def recipe(target: str, path: Path | None = None) -> str:
    """What `make TARGET` would do, with the programs of a folder before all others."""
    if shutil.which("make") is None:
        pytest.skip("needs make")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    variables["PATH"] = os.pathsep.join([*([str(path)] if path else []), os.environ["PATH"]])
    command = ["make", "--dry-run", "--no-print-directory", target]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True).stdout


def test_the_limit_of_a_cell_is_there_for_hangs_only() -> None:
    limits = re.findall(r"nbval-cell-timeout=(\d+)", recipe("test"))
    limits += re.findall(r"^LIMIT = (\d+)", (ROOT / ".ci" / "run_notebooks.py").read_text(encoding="utf-8"), re.M)
    assert limits == ["900", "900"]


@pytest.mark.parametrize(("user", "allowed"), [("0", True), ("1000", False)])
def test_root_may_open_the_lab(tmp_path: Path, user: str, allowed: bool) -> None:
    (tmp_path / "id").write_text(f"#!/bin/sh\necho {user}\n", encoding="utf-8")
    (tmp_path / "id").chmod(0o755)
    assert ("--allow-root" in recipe("lab", tmp_path)) is allowed
