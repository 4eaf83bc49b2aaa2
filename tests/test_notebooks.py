"""What is stored in the notebooks, so that they can be read without a kernel; `make notebooks` stores them so."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
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
