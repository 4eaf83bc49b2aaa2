"""What a layout is (how a data set lies on disk), and the rules that all layouts share.

Names of folders count in any case. What lies in a folder of images is used or refused by name: nothing is silently
missing from a split, and no mask becomes an image.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kdlib.data.errors import DatasetError, printable, readable
from kdlib.data.listing import (
    child,
    few,
    folders_in,
    has_images,
    image_files,
    images_in,
    only_mask,
    refuse_images,
    stem_of_image,
)
from kdlib.data.samples import Sample

NORMAL_NAMES = ("normal", "good", "ok", "healthy", "defect_free", "defect-free")
DEFECT_NAMES = ("defects", "defect", "defective", "anomalies", "anomaly", "anomalous", "abnormal", "bad", "ko", "ng")
MASK_NAMES = ("ground_truth", "masks", "mask")


class CategoryImages(NamedTuple):
    """The samples of one category. An empty `calib` means: no official validation set, take a share of `train`."""

    train: Sequence[Sample]
    test: Sequence[Sample]
    calib: Sequence[Sample] = ()


class Layout(NamedTuple):
    """One way in which a data set lies on disk."""

    name: str  # what `load(layout=...)` takes
    expects: str  # what the root holds; shown in errors
    find: Callable[[Path], Mapping[str, Path]]  # the categories at a root with their folders; none in another layout
    collect: Callable[[Path, str], CategoryImages]  # the samples of the category that lies in a folder
    licence: str = ""
    licensed: frozenset[str] | None = None  # the categories that tell this data set; `None`: the layout does


def is_normal(name: str) -> bool:
    """Whether a folder's name says that its images have no defect."""
    return name.lower() in NORMAL_NAMES


def normal_folders(folder: Path | None) -> list[Path]:
    """The sub-folders for images without defect."""
    return [part for part in folders_in(folder) if is_normal(part.name)]


def find_categories(root: Path, is_category: Callable[[Path], bool]) -> dict[str, Path]:
    """The category folders at `root`: `root` itself if it is one, else its sub-folders that are.

    Warns of a sub-folder that has training images in another layout, for it would be missing.
    """
    if is_category(root):
        return {readable(root.name): root}
    categories = {readable(folder.name): folder for folder in folders_in(root) if is_category(folder)}
    if categories:
        refuse_images(root)
        for folder in folders_in(root):
            train = child(folder, "train")
            if folder not in categories.values() and train and has_images(train):
                text = f"{folder} is passed over: it is not laid out like {few(list(categories), 3)}."
                warnings.warn(printable(text), stacklevel=2)
    return categories


def samples_in(folder: Path, category: str, defect: str = "normal", masks: Path | None = None) -> list[Sample]:
    """One sample for each image directly in `folder`; `defect` other than "normal" makes them anomalous.

    With `masks`, each image needs a mask there: a file of the same name, with or without `_mask`, and any image suffix,
    or a folder of that name with masks. Without, a mask beside the image is taken where there is one.
    """
    mask_of = images_in(folder)
    if defect == "normal":
        return [Sample(path=path, category=category) for path in mask_of]
    if masks is not None:
        mask_of = _match(mask_of, masks)
    owners: dict[Path, Path] = {}
    for path, mask in mask_of.items():
        if mask is not None and (other := owners.setdefault(mask, path)) != path:
            raise DatasetError(f"{other} and {path.name} share the mask {mask}. Give their files different names.")
    kind = readable(defect)
    return [Sample(path=p, category=category, defect=kind, label=1, mask_path=mask) for p, mask in mask_of.items()]


def _match(images: Mapping[Path, Path | None], folder: Path) -> dict[Path, Path | None]:
    """The mask of each image: in a folder `STEM_mask.*`, else `STEM.*` or the folder `STEM`; else the one beside it."""
    masks: dict[str, list[Path]] = defaultdict(list)
    for path in [*image_files(folder), *filter(has_images, folders_in(folder))]:
        masks[path.name if path.is_dir() else path.stem].append(path)
    with_ending = {stem_of_image(stem): group for stem, group in masks.items() if stem_of_image(stem) != stem}
    matched: dict[Path, Path | None] = {}
    for path, beside in images.items():
        candidates = with_ending.get(path.stem) or masks.get(path.stem) or []
        matched[path] = only_mask(path, candidates + ([beside] if beside else []))
        if matched[path] is None:
            raise DatasetError(
                f"No mask for {path}: expected {path.stem}_mask.png or {path.stem}.png in {folder}, which holds "
                f"{len(masks)} masks for {len(images)} images. Add it, or move the mask folder away to do without."
            )
    return matched
