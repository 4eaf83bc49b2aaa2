"""BMAD: six sets of medical images. Some have masks, some a label per image only; the folders tell which.

    ROOT/SET/{train,valid,test}/good/*.png                 Brain, Liver, RESC (Retina_RESC), OCT2017 (Retina_OCT2017),
    ROOT/SET/{valid,test}/Ungood/*.png                     RSNA (Chest), camelyon16 (Histopathology)
                                                           with masks, one level deeper:
    ROOT/SET/{train,valid,test}/good/img/*.png
    ROOT/SET/{valid,test}/Ungood/img/*.png
    ROOT/SET/{valid,test}/Ungood/{anomaly_mask,label}/*.png    same file names

valid/good becomes calib, so train keeps all its images; valid/Ungood is not used, because nothing here is tuned on
defects. A category has the name of its folder.
Source: J. Bao et al., BMAD, CVPR workshops 2024.
"""

from __future__ import annotations

from pathlib import Path

from kdlib.data.layout import NORMAL_NAMES, CategoryImages, Layout, find_categories, normal_folders, samples_in
from kdlib.data.listing import child, refuse_folders, refuse_images
from kdlib.data.samples import Sample

DEFECTIVE = "Ungood"
IMAGES, MASKS = "img", ("anomaly_mask", "label")


def find(root: Path) -> dict[str, Path]:
    """The folders at `root` that hold train/good and a test/Ungood."""
    return find_categories(root, _is_category)


def collect(folder: Path, category: str) -> CategoryImages:
    """The samples of one set.

    Raises:
        DatasetError: Images in places that no split takes, or a mask folder that lacks a mask.
    """
    train, valid, test = (child(folder, name) for name in ("train", "valid", "test"))
    refuse_images(folder, train, valid, test)
    refuse_folders(folder, ("train", "valid", "test"))
    refuse_folders(train, NORMAL_NAMES, ", because training needs normal images only")
    for part in (valid, test):
        refuse_folders(part, (*NORMAL_NAMES, DEFECTIVE.lower()))
    return CategoryImages(
        train=_normal(train, category),
        calib=_normal(valid, category),
        test=_normal(test, category) + _defective(test, category),
    )


def _is_category(folder: Path) -> bool:
    test = child(folder, "test")
    has_normal = bool(normal_folders(child(folder, "train")))
    return has_normal and test is not None and child(test, DEFECTIVE.lower()) is not None


def _normal(split: Path | None, category: str) -> list[Sample]:
    return [sample for part in normal_folders(split) for sample in _samples(part, category)]


def _defective(test: Path | None, category: str) -> list[Sample]:
    part = child(test, DEFECTIVE.lower()) if test else None
    return _samples(part, category, DEFECTIVE) if part else []


def _samples(part: Path, category: str, defect: str = "normal") -> list[Sample]:
    """The images of a part, which lie in a folder of their own where there are masks."""
    refuse_folders(part, (IMAGES, *MASKS))
    inner = child(part, IMAGES)
    if inner:
        refuse_images(part)
        refuse_folders(inner)
    masks = next((folder for name in MASKS if (folder := child(part, name))), None)
    return samples_in(inner or part, category, defect, masks, deeper=True)


BMAD = Layout(
    name="bmad",
    expects=f"SET/train/good and SET/test/{DEFECTIVE}",
    find=find,
    collect=collect,
    licence="CC BY-NC-SA 4.0, non-commercial (BMAD); each of its sets also keeps its own terms",
)
