"""The check of links and spelling that `make lint` does."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

CHECK = runpy.run_path(str(Path(__file__).resolve().parents[1] / ".ci" / "check_texts.py"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "README.md").write_text("# Read me\n\n## Your own images\n", encoding="utf-8")
    return tmp_path


def notebook(project: Path, *cells: Any) -> Path:
    path = project / "notebooks" / "00_one.ipynb"
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


@pytest.mark.parametrize(
    "link",
    [
        "[a](../README.md)",
        "[a](../README.md#your-own-images)",
        "[a](#a-heading)",
        "[a](https://example.org/page)",
        "`[a](nowhere.md)`",
        "```\n[a](nowhere.md)\n```",
    ],
)
def test_a_link_that_leads_somewhere_is_fine(project: Path, link: str) -> None:
    assert list(CHECK["broken"](notebook(project, new_markdown_cell(f"## A heading\n\n{link}")))) == []


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("[a](READ.md)", "no such file"),
        ("![a](assets/a.svg)", "no such file"),
        ("[a](../README.md#my-images)", "README.md has no such heading"),
        ("[a](https://page)", "no address"),
        ("[a](file:///tmp)", "neither http"),
    ],
)
def test_a_link_that_leads_nowhere_is_named(project: Path, link: str, fault: str) -> None:
    (found,) = CHECK["broken"](notebook(project, new_markdown_cell(link)))
    assert fault in found


def test_spelling_is_checked_in_text_and_code_and_not_in_outputs(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = new_output("stream", text="recieve")
    path = notebook(project, new_markdown_cell("a word"), new_code_cell("x = 1", outputs=[output]))
    assert CHECK["main"](project) == 0
    (project / "kdlib").mkdir()
    (project / "kdlib" / "one.py").write_text("# the seperate one\n", encoding="utf-8")
    notebook(project, new_markdown_cell("to recieve"), new_code_cell("teh = 1"))
    assert CHECK["main"](project) == 1
    found = capsys.readouterr().out
    assert path.name in found
    assert all(f"{word} ==>" in found for word in ("recieve", "teh", "seperate"))
