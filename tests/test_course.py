"""The course as a room of its own: its parts come when they are asked for."""

from __future__ import annotations

import pytest

from kdlib import course


def test_parts_of_the_course_are_there_when_asked_for() -> None:
    assert course.rendered.PRODUCTS and course.widgets.explorer and course.checks.even_part
    assert dir(course) == sorted(course.__all__)
    with pytest.raises(AttributeError, match=r"'kdlib\.course' has no attribute 'workshop'; it has checks"):
        course.workshop  # noqa: B018
