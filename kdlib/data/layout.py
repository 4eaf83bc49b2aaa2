"""What a layout is (how a data set lies on disk), and the rules that all layouts share.

Names of folders count in any case. What lies in a folder of images is used or refused by name: nothing is silently
missing from a split, and no mask becomes an image.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdlib.data.errors import DatasetError, readable
from kdlib.data.listing import (
    child,
    folders_in,
    has_images,
    image_files,
    images_in,
    only_mask,
    refuse_folders,
    refuse_images,
    stem_of_image,
)
from kdlib.data.samples import Sample

NORMAL_NAMES = ("normal", "good", "ok", "healthy", "defect_free", "defect-free")
DEFECT_NAMES = ("defects", "defect", "defective", "anomalies", "anomaly", "anomalous", "abnormal", "bad", "ko", "ng")
MASK_NAMES = ("ground_truth", "masks", "mask")


@dataclass(frozen=True, kw_only=True)
class CategoryImages:
    """The samples of one category. An empty `calib` means: no official validation set, take a share of `train`."""

    train: Sequence[Sample]
    test: Sequence[Sample]
    calib: Sequence[Sample] = field(default=())


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which a data set lies on disk.

    Attributes:
        name: What `load(layout=...)` takes.
        expects: What the root holds; shown in errors.
        find: Gives the categories at a root with their folders; empty if the root has another layout.
        collect: Gives the samples of the category that lies in a folder.
        licence: Of the data set.
        licensed: The categories whose presence tells this data set; `None`: the layout does.
        diagnose: Says what is wrong with a root in which this layout was nearly recognised; empty if it was not.
    """

    name: str
    expects: str
    find: Callable[[Path], Mapping[str, Path]]
    collect: Callable[[Path, str], CategoryImages]
    licence: str = ""
    licensed: frozenset[str] | None = None
    diagnose: Callable[[Path], str] = lambda root: ""


def is_normal(name: str) -> bool:
    """Whether a folder's name says that its images have no defect."""
    return name.lower() in NORMAL_NAMES


def normal_folders(folder: Path | None) -> list[Path]:
    """The sub-folders for images without defect."""
    return [part for part in folders_in(folder) if is_normal(part.name)] if folder else []


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
                warnings.warn(
                    f"{readable(str(folder))} is passed over: it is not laid out like "
                    f"{', '.join(list(categories)[:3])}.",
                    stacklevel=2,
                )
    return categories


def normal_images(folder: Path | None, category: str) -> list[Sample]:
    """The images of a split that may hold normal ones only, in `folder/good` or another name for normal.

    Raises:
        DatasetError: Images lie elsewhere in the folder.
    """
    refuse_images(folder)
    refuse_folders(folder, NORMAL_NAMES, ", because training and calibration need normal images only")
    return [sample for part in normal_folders(folder) for sample in samples_in(part, category)]


def samples_in(
    folder: Path, category: str, defect: str = "normal", masks: Path | None = None, *, deeper: bool = False
) -> list[Sample]:
    """One sample for each image directly in `folder`; `defect` other than "normal" makes them anomalous.

    With `masks`, each image needs a mask there: a file of the same name, with or without `_mask`, and any image suffix,
    or a folder of that name with masks. Without, a mask beside the image is taken where there is one.

    Args:
        folder: Where the images lie.
        category: Their category.
        defect: Their kind of defect.
        masks: The folder of their masks.
        deeper: Whether folders with further images may lie in it.

    Raises:
        DatasetError: A mask is missing, or is not the only one of its image or for its image; or images lie deeper.
    """
    if not deeper:
        refuse_folders(folder)
    images = images_in(folder)
    if defect == "normal":
        return [Sample(path=path, category=category) for path in images]
    mask_of = _match(images, masks) if masks is not None else images
    owners: dict[Path, Path] = {}
    for path, mask in mask_of.items():
        if mask is not None and (other := owners.setdefault(mask, path)) != path:
            raise DatasetError(f"{other} and {path.name} share the mask {mask}. Give their files different names.")
    return [
        Sample(path=path, category=category, defect=readable(defect), label=1, mask_path=mask_of[path])
        for path in images
    ]


def _match(images: Mapping[Path, Path | None], folder: Path) -> dict[Path, Path | None]:
    """The mask of each image: in a folder `STEM_mask.*`, else `STEM.*` or the folder `STEM`; else the one beside it."""
    masks: dict[str, list[Path]] = defaultdict(list)
    for path in [*image_files(folder), *filter(has_images, folders_in(folder))]:
        masks[path.name if path.is_dir() else path.stem].append(path)
    with_ending = {stem_of_image(stem): group for stem, group in masks.items() if stem_of_image(stem) != stem}
    matched: dict[Path, Path | None] = {}
    for path, beside in images.items():
        candidates = with_ending.get(path.stem) or masks.get(path.stem) or []
        mask = only_mask(path, candidates + ([beside] if beside else []))
        if mask is None:
            raise DatasetError(
                f"No mask for {path}: expected {path.stem}_mask.png or {path.stem}.png in {folder}, which holds "
                f"{len(masks)} masks for {len(images)} images. Add it, or move the mask folder away to do without."
            )
        matched[path] = mask
    return matched
