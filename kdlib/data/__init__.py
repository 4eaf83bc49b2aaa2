"""Data sets: `load(root)` gives train, calib and test sets of images, whatever the layout on disk.

    root -> which layout? -> categories -> samples -> Splits(train, calib, test)

`train` and `calib` hold normal images. `calib` is the data set's own validation set where there is one, else a share of
the training images that is the same on every machine. `test` holds both kinds. Where a set has defective test images
but no normal ones, the same share again is held out for the test; where it has only normal images, `test` is empty.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kdlib.data.errors import DatasetError, check_known
from kdlib.data.generated import data_folder, licence_of_generated, locate
from kdlib.data.layout import CategoryImages
from kdlib.data.layouts import LAYOUTS, recognise
from kdlib.data.listing import contents
from kdlib.data.reading import WHITE, open_image, open_mask, resize_image, resize_mask, to_rgb
from kdlib.data.records import ImageSet, Item, Splits, join
from kdlib.data.samples import Sample
from kdlib.randomness import checked_seed

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


def load(
    root: str | Path,
    category: str | Sequence[str] | None = None,
    *,
    layout: str = "auto",
    size: int | tuple[int, int] = 256,
    calib_share: float = 0.2,
    seed: int = 0,
    white: int | None = None,
) -> Splits:
    """Find the images of a data set and split them.

    Args:
        root: The folder of a data set, or of one of its categories; kdlib itself renders "workshop" and "mill". A
            folder here of such a name is given as "./workshop" or as a `Path`.
        category: One name, several, or None for all (one model for all: the sets then hold all categories together).
        layout: One of `LAYOUTS`, or "auto" to recognise it.
        size: Side length in pixels, or (height, width); images are resized plainly, the aspect ratio is not kept.
        calib_share: Share of the normal training images that becomes `calib`, at least one image of two; 0: none.
            Sets with an official validation set (MVTec 3D-AD, LOCO AD and AD 2, BMAD) use that instead.
        seed: Chooses which images that share takes.
        white: The value of 16-bit grey files that becomes white: 1023 for cameras with 10 bits, 4095 for 12 bits;
            `None`: 65535.

    Raises:
        DatasetError: No such folder, no known layout, unknown category, no images, misplaced files, missing masks, too
            few normal images for the split, or an option out of its range.
    """
    shape = _size(size)
    if min(shape) < 1 or not 0 <= calib_share < 1:
        raise DatasetError(f"size={size!r} must be positive and calib_share={calib_share!r} at least 0 and below 1.")
    white, seed = None if white is None else _white(white), checked_seed(seed)
    wanted = [category] if isinstance(category, str) else category
    folder = locate(root, wanted)
    kind, known = recognise(folder, layout)
    licensed = kind.licensed is None or kind.licensed.issuperset(known)
    licence = licence_of_generated(folder) or (kind.licence if licensed else "")
    parts = []
    for name in _choose(wanted, known, folder):
        images = kind.collect(known[name], name)
        if not images.train:
            raise DatasetError(
                f"No normal training images for category {name!r} in {known[name]} (layout {kind.name!r}: "
                f"{kind.expects}; found: {contents(known[name])}). Images end in .png, .jpg, .bmp, .tif or the like."
            )
        split = _split(images, name, calib_share, seed)
        train, calib, test = (ImageSet(part, categories=(name,), size=shape, white=white) for part in split)
        parts.append(Splits(train, calib, test, categories=(name,), licence=licence))
    return join(parts)


def categories(root: str | Path, layout: str = "auto") -> tuple[str, ...]:
    """The names of the categories below `root`, sorted.

    Raises:
        DatasetError: No such folder or no known layout.
    """
    return tuple(recognise(locate(root), layout)[1])


def _size(size: int | tuple[int, int]) -> tuple[int, int]:
    try:
        height, width = size if isinstance(size, Sequence) else (size, size)
        return operator.index(height), operator.index(width)
    except (TypeError, ValueError):
        raise DatasetError(f"size={size!r} must be a whole number of pixels, or two: (height, width).") from None


def _white(white: int) -> int:
    """A white level as an `int`, NumPy's included."""
    number = operator.index(white) if hasattr(white, "__index__") else 0
    if not 255 <= number <= WHITE:
        raise DatasetError(f"white={white!r} must lie between 255 and {WHITE}, a whole number such as 1023 or 4095.")
    return number


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


def _split(images: CategoryImages, category: str, share: float, seed: int) -> tuple[list[Sample], ...]:
    """The images for training, for calibration and for the test."""
    train, calib, test = list(images.train), list(images.calib), list(images.test)
    if test and all(sample.label for sample in test):
        train, held = _hold_out(train, share, seed)
        test += held
    if share and not calib:
        train, calib = _hold_out(train, share, seed)
        if not calib:
            raise DatasetError(
                f"Category {category!r} has too few normal images ({len(images.train)}) to hold some out for "
                f"calibration. Add images, or give calib_share=0 and do without a threshold."
            )
    return train, calib, test


def _hold_out(samples: list[Sample], share: float, seed: int) -> tuple[list[Sample], list[Sample]]:
    """Divide samples, sorted by name, into those kept and the share held out; both stay sorted."""
    count = min(len(samples) - 1, max(1, round(share * len(samples)))) if share else 0
    held = set(np.random.default_rng(seed).permutation(len(samples))[:count].tolist())
    return [s for i, s in enumerate(samples) if i not in held], [s for i, s in enumerate(samples) if i in held]
