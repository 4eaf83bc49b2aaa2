"""The course as a room of its own: its parts come when they are asked for, and rendering needs no widgets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kdlib import course

ROOT = Path(__file__).resolve().parents[1]
BLOCKED = ("matplotlib", "ipywidgets", "IPython")


def test_rendering_and_checking_need_neither_figures_nor_widgets() -> None:
    blocked = "".join(f"sys.modules['{name}'] = None; " for name in BLOCKED)  # importing one of these fails
    code = f"import sys; {blocked}import kdlib.course.rendered, kdlib.course.checks, kdlib.course.claims"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_parts_of_the_course_are_there_when_asked_for() -> None:
    assert course.rendered.PRODUCTS and course.widgets.explorer and course.checks.even_part
    assert dir(course) == sorted(course.__all__)
    with pytest.raises(AttributeError, match=r"'kdlib\.course' has no attribute 'workshop'; it has checks"):
        course.workshop  # noqa: B018
