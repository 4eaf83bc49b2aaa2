"""The course and the library: who may import whom, and what an import may cost."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from kdlib import course

ROOT = Path(__file__).resolve().parents[1]
BLOCKED = ("matplotlib", "ipywidgets", "IPython")


def test_imports_need_neither_figures_nor_widgets() -> None:
    blocked = "".join(f"sys.modules['{name}'] = None; " for name in BLOCKED)  # importing one of these fails
    code = f"import sys; {blocked}import kdlib, kdlib.course.rendered, kdlib.course.checks, kdlib.course.claims"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_parts_of_the_course_are_there_when_asked_for() -> None:
    assert course.rendered.PRODUCTS and course.widgets.explorer and course.checks.even_part
    assert dir(course) == sorted(course.__all__)
    with pytest.raises(AttributeError, match=r"'kdlib\.course' has no attribute 'workshop'; it has checks"):
        course.workshop  # noqa: B018


def test_the_library_does_not_import_the_course() -> None:
    folder = ROOT / "kdlib"
    library = [path for path in folder.rglob("*.py") if path.relative_to(folder).parts[0] != "course"]
    pattern = re.compile(r"^\s*(from|import) kdlib(\.course| import .*\bcourse\b)", re.M)
    guilty = [path.relative_to(ROOT).as_posix() for path in library if pattern.search(path.read_text(encoding="utf-8"))]
    assert guilty == []
