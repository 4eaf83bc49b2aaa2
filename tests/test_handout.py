"""What a class gets: the course without its answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def edition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("handout")
    subprocess.run([sys.executable, str(ROOT / ".ci" / "handout.py"), str(folder)], check=True)
    return folder


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_keeps_its_code_and_hints_and_loses_its_answers(edition: Path, path: Path) -> None:
    before, after = (nbformat.read(p, as_version=4) for p in (path, edition / "notebooks" / path.name))
    sources = [[c.source for c in nb.cells if c.cell_type == "code"] for nb in (before, after)]
    texts = ["\n".join(c.source for c in nb.cells if c.cell_type == "markdown") for nb in (before, after)]
    assert sources[0] == sources[1]
    assert not any(c.outputs for c in after.cells if c.cell_type == "code")
    assert "<summary>Solution" in texts[0]
    assert "Solution" not in texts[1]
    assert texts[1].count("<summary>") == texts[1].count("<summary>Hint")
    assert texts[1].count("<summary>Hint") == texts[0].count("<summary>Hint")
    assert texts[1].count("<details>") == texts[1].count("</details>")


def test_the_notebooks_find_what_they_read_and_the_teachers_page_stays_here(edition: Path) -> None:
    assert (edition / "notebooks" / "assets").is_dir()
    assert (edition / "data" / "results" / "claims.csv").exists()
    assert (edition / "notebooks" / "GLOSSARY.md").exists()
    assert not (edition / "notebooks" / "TEACHING.md").exists()
