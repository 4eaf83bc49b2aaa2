"""Image sets that a package makes itself, by name: `load("workshop")`. The course offers its rendered ones.

A package offers a set through an entry point of the group `kdlib.data`, whose object is a `Generated`:

    [project.entry-points."kdlib.data"]
    workshop = "kdlib.course.rendered:WORKSHOP"
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

from kdlib.data.errors import DatasetError
from kdlib.data.listing import has_images
from kdlib.files import expanded


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
def offered(name: str) -> Generated | None:
    """The set that a package offers under this name."""
    found = list(entry_points(group="kdlib.data", name=name))
    return found[0].load() if found else None


def names() -> list[str]:
    """All names that packages offer."""
    return sorted({entry.name for entry in entry_points(group="kdlib.data")})


def data_folder() -> Path:
    """Where generated data lies: $KDLIB_DATA, else data/ of the repository around the current folder, else ./data."""
    if chosen := os.environ.get("KDLIB_DATA"):
        return expanded(chosen)
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if _is_repository(folder)), here) / "data"


def locate(root: str | Path, categories: Sequence[str] | None = None) -> Path:
    """Where a data set lies. A plain name may mean a generated set, whose `categories` are made where missing."""
    wanted = offered(root) if isinstance(root, str) else None
    if wanted is None:
        return Path(root)
    folder, here = data_folder() / root, Path(root)
    if here.resolve() != folder.resolve() and has_images(here):
        raise DatasetError(
            f"{root!r} is the name of a set that kdlib makes (in {folder}), and of a folder of images here "
            f"({here.resolve()}). Give './{root}' or Path({root!r}) for the folder; for the set that kdlib makes, "
            f"rename the folder or work from another one."
        )
    wanted.make(folder, categories)
    return folder


def licence_of_generated(folder: Path) -> str:
    """The licence of a generated set that lies in the data folder, empty for any other."""
    for name in names():
        known = offered(name)
        if known and folder.resolve().is_relative_to((data_folder() / name).resolve()):
            return known.licence
    return ""


def _is_repository(folder: Path) -> bool:
    project = folder / "pyproject.toml"
    if project.is_file() and re.search(r'(?m)^name\s*=\s*"kdlib"', project.read_text(encoding="utf-8")):
        return True
    return (folder / "notebooks" / "00_start_here.ipynb").is_file()
