"""Image sets that a package makes itself, by name: `load("workshop")`. The course offers its rendered ones.

A package offers a set through an entry point of the group `kdlib.data`, whose object is a `Generated`:

    [project.entry-points."kdlib.data"]
    workshop = "kdlib.course.rendered:WORKSHOP"
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Generated:
    """A set that is made where it is missing.

    Attributes:
        make: Makes the named categories, all if `None`, below a folder; what is there already stays.
        licence: Of the images.
    """

    make: Callable[[Path, Sequence[str] | None], None]
    licence: str


@cache
def generated(name: str) -> Generated | None:
    """The set that a package offers under this name."""
    for entry in entry_points(group="kdlib.data", name=name):
        found: Generated = entry.load()
        return found
    return None


def names() -> list[str]:
    """All names that packages offer."""
    return sorted({entry.name for entry in entry_points(group="kdlib.data")})
