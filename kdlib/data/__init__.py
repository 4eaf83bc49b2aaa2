"""Data sets: `load(root)` gives train, calib and test sets of images, whatever the layout on disk.

    root -> which layout? -> categories -> samples -> Splits(train, calib, test)

`train` and `calib` hold normal images. `calib` is the data set's own validation set where there is one, else a share of
the training images that is the same on every machine. `test` holds both kinds. Where a set has defective test images
but no normal ones, the same share again is held out for the test; where it has only normal images, `test` is empty.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from kdlib.data.bmad import BMAD
from kdlib.data.btad import BTAD
from kdlib.data.folder import MVTEC, OWN
from kdlib.data.generated import generated, names
from kdlib.data.layout import Found, Layout, contents, folders_in
from kdlib.data.mvtec3d import MVTEC3D
from kdlib.data.reading import DatasetError, open_image, open_mask, resize_image, resize_mask, to_rgb
from kdlib.data.records import ImageSet, Item, Sample, Splits, check_known, join
from kdlib.data.visa import VISA

__all__ = [
    "LAYOUTS",
    "DatasetError",
    "ImageSet",
    "Item",
    "Sample",
    "Splits",
    "categories",
    "data_folder",
    "join",
    "load",
    "open_image",
    "open_mask",
    "resize_image",
    "resize_mask",
    "to_rgb",
]

# "auto" takes the first that fits, so the more particular layouts come first.
LAYOUTS: Mapping[str, Layout] = {each.name: each for each in (VISA, MVTEC3D, BMAD, BTAD, MVTEC, OWN)}


def load(
    root: str | Path,
    category: str | Sequence[str] | None = None,
    *,
    layout: str = "auto",
    size: int | tuple[int, int] = 256,
    calib_share: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Find the images of a data set and split them.

    Args:
        root: The folder of a data set, or of one of its categories; kdlib itself renders "workshop" and "mill".
        category: One name, several, or None for all (one model for all: the sets then hold all categories together).
        layout: One of `LAYOUTS`, or "auto" to recognise it.
        size: Side length in pixels, or (height, width); images are resized plainly, the aspect ratio is not kept.
        calib_share: Share of the normal training images that becomes `calib`, at least one image of two; 0: none.
            Sets with an official validation set (MVTec 3D-AD, BMAD) use that instead.
        seed: Chooses which images that share takes.

    Raises:
        DatasetError: No such folder, no known layout, unknown category, no images, misplaced files, missing masks.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1 or not 0 <= calib_share < 1:
        raise DatasetError(f"size={size!r} must be positive and calib_share={calib_share!r} at least 0 and below 1.")
    wanted = [category] if isinstance(category, str) else category
    folder = _folder(root, wanted)
    kind, known = _recognise(folder, layout)
    names = _choose(wanted, known, folder)
    theirs = kind.licensed is None or kind.licensed.issuperset(known)
    licence = _made_here(folder) or (kind.licence if theirs else "")
    parts = []
    for name in names:
        found = kind.collect(known[name], name)
        if not found.train:
            raise DatasetError(
                f"No normal training images for category {name!r} in {known[name]} (layout {kind.name!r}: "
                f"{kind.expects}; found: {contents(known[name])}). Images end in .png, .jpg, .bmp, .tif or .webp."
            )
        parts.append(_split(found, name, (height, width), calib_share, seed, licence))
    return join(parts)


def categories(root: str | Path, layout: str = "auto") -> tuple[str, ...]:
    """The names of the categories below `root`, sorted.

    Raises:
        DatasetError: No such folder or no known layout.
    """
    return tuple(_recognise(_folder(root), layout)[1])


def data_folder() -> Path:
    """Where generated data lies: $KDLIB_DATA, else data/ of the repository around the current folder, else ./data."""
    if chosen := os.environ.get("KDLIB_DATA"):
        return Path(chosen)
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if _is_repository(folder)), here) / "data"


def _is_repository(folder: Path) -> bool:
    project = folder / "pyproject.toml"
    if project.is_file() and re.search(r'(?m)^name\s*=\s*"kdlib"', project.read_text(encoding="utf-8")):
        return True
    return (folder / "notebooks" / "00_start_here.ipynb").is_file()


def _folder(root: str | Path, wanted: Sequence[str] | None = None) -> Path:
    """Where a data set lies; what kdlib renders itself is rendered where it is missing."""
    offered = generated(root) if isinstance(root, str) else None
    if offered is None:
        return Path(root)
    folder = data_folder() / root
    offered.make(folder, wanted)
    return folder


def _made_here(folder: Path) -> str:
    """The licence of a generated set that lies in the data folder, empty for any other."""
    for name in names():
        offered = generated(name)
        if offered and folder.resolve().is_relative_to((data_folder() / name).resolve()):
            return offered.licence
    return ""


def _recognise(root: Path, layout: str) -> tuple[Layout, Mapping[str, Path]]:
    """The layout of a folder and its categories with their folders."""
    root = Path(os.path.abspath(root.expanduser()))
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "does not exist"
        raise DatasetError(f"The data set folder {root} {problem}. Give the folder that holds the categories.")
    if layout != "auto":
        check_known("layout", layout, ("auto", *LAYOUTS))
    tried = list(LAYOUTS.values()) if layout == "auto" else [LAYOUTS[layout]]
    for kind in tried:
        if found := kind.find(root):
            return kind, found
    looked = "\n".join(f"  {kind.name}: {kind.expects}" for kind in tried)
    found_here = f"Found: {contents(root)}.{_hint(root, layout)}"
    raise DatasetError(f"No data set in {root}. Looked there for\n{looked}\n{found_here}")


def _hint(root: Path, layout: str) -> str:
    """Where a data set might be instead: here in another layout, or one folder further down."""
    if layout != "auto":
        return f" It looks like layout={kind!r}." if (kind := _fitting(root)) else ""
    below = [f"{child.name} ({kind})" for child in folders_in(root) if (kind := _fitting(child))]
    return f" One folder further down there is: {', '.join(below[:6])}." if below else ""


def _fitting(folder: Path) -> str:
    for kind in LAYOUTS.values():
        with suppress(DatasetError):
            if kind.find(folder):
                return kind.name
    return ""


def _choose(wanted: Sequence[str] | None, known: Mapping[str, Path], root: Path) -> list[str]:
    if wanted is None:
        return list(known)
    if not wanted:
        raise DatasetError(f"category=[] chooses nothing; give None for all of {', '.join(known)}.")
    for name in wanted:
        exists = (root / name).is_dir()
        hint = f" The folder {root / name} exists, but is not laid out like the others." if exists else ""
        check_known("category", name, tuple(known), hint)
    return list(dict.fromkeys(wanted))


def _split(found: Found, category: str, size: tuple[int, int], calib_share: float, seed: int, licence: str) -> Splits:
    train, calib, test = list(found.train), list(found.calib), list(found.test)
    if test and all(sample.label for sample in test):
        train, held = _hold_out(train, calib_share, seed)
        test += held
    if not calib:
        train, calib = _hold_out(train, calib_share, seed)
    one = partial(ImageSet, categories=(category,), size=size)
    return Splits(one(train), one(calib), one(test), categories=(category,), licence=licence)


def _hold_out(samples: list[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Divide samples, sorted by name, into those kept and the share held out; both stay sorted."""
    count = min(len(samples) - 1, max(1, round(share * len(samples)))) if share else 0
    held = set(np.random.default_rng(seed).permutation(len(samples))[:count].tolist())
    return [s for i, s in enumerate(samples) if i not in held], [s for i, s in enumerate(samples) if i in held]
