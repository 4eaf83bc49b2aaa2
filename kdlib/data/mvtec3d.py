"""MVTec 3D-AD, colour images only; the point clouds in xyz/ are not read.

    ROOT/CATEGORY/train/good/rgb/000.png
    ROOT/CATEGORY/validation/good/rgb/000.png          becomes calib, so train keeps all its images
    ROOT/CATEGORY/test/{good,DEFECT}/rgb/000.png
    ROOT/CATEGORY/test/DEFECT/gt/000.png

Published results differ in whether they train on validation/ too; here it is only used for calibration.
Source: P. Bergmann et al., The MVTec 3D-AD Dataset, VISAPP 2022.
"""

from __future__ import annotations

from pathlib import Path

from kdlib.data.layout import (
    NORMAL_NAMES,
    CategoryImages,
    Layout,
    find_categories,
    is_normal,
    normal_folders,
    samples_in,
)
from kdlib.data.listing import child, folders_in, refuse_folders, refuse_images
from kdlib.data.samples import Sample

COLOUR, TRUTH, UNUSED = "rgb", "gt", ("xyz", "calibration")


def find(root: Path) -> dict[str, Path]:
    """The folders at `root` that hold train/good/rgb."""
    return find_categories(root, _is_category)


def collect(folder: Path, category: str) -> CategoryImages:
    """The samples of one category.

    Raises:
        DatasetError: Images in places that no split takes, or a gt folder that lacks a mask.
    """
    refuse_images(folder)
    refuse_folders(folder, ("train", "validation", "test", *UNUSED))
    test = child(folder, "test")
    refuse_images(test)
    return CategoryImages(
        train=_normal(child(folder, "train"), category),
        calib=_normal(child(folder, "validation"), category),
        test=[sample for part in folders_in(test) for sample in _samples(part, category)] if test else [],
    )


def _is_category(folder: Path) -> bool:
    return any(child(part, COLOUR) for part in normal_folders(child(folder, "train")))


def _normal(split: Path | None, category: str) -> list[Sample]:
    refuse_images(split)
    refuse_folders(split, NORMAL_NAMES, ", because training and calibration need normal images only")
    return [sample for part in normal_folders(split) for sample in _samples(part, category)]


def _samples(part: Path, category: str) -> list[Sample]:
    """The images of a kind; its folder's name tells whether they are normal."""
    refuse_images(part)
    refuse_folders(part, (COLOUR, TRUTH, *UNUSED))
    images = child(part, COLOUR)
    if images is None:
        return []
    if is_normal(part.name):
        return samples_in(images, category)
    return samples_in(images, category, part.name, child(part, TRUTH))


MVTEC3D = Layout(
    name="mvtec3d",
    expects="CATEGORY/train/good/rgb/*.png",
    find=find,
    collect=collect,
    licence="CC BY-NC-SA 4.0, non-commercial (MVTec 3D-AD)",
)
