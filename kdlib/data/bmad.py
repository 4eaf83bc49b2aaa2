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

from kdlib.data.layout import Found, Layout, find_categories, refuse_images, samples_in
from kdlib.data.records import Sample

DEFECTIVE = "Ungood"
MASK_FOLDERS = ("anomaly_mask", "label")


def find(root: Path) -> dict[str, Path]:
    """The folders at `root` that hold train/good and a test/Ungood."""
    return find_categories(
        root, lambda folder: (folder / "train" / "good").is_dir() and (folder / "test" / DEFECTIVE).is_dir()
    )


def collect(folder: Path, category: str) -> Found:
    """The samples of one set.

    Raises:
        DatasetError: Images where folders belong, or a mask folder that lacks a mask.
    """
    train, valid, test = folder / "train", folder / "valid", folder / "test"
    refuse_images(folder, train, valid, test)
    return Found(
        train=_samples(train / "good", category),
        calib=_samples(valid / "good", category),
        test=_samples(test / "good", category) + _samples(test / DEFECTIVE, category, DEFECTIVE),
    )


def _samples(folder: Path, category: str, defect: str = "normal") -> list[Sample]:
    images = folder / "img"
    if images.is_dir():
        refuse_images(folder)
    else:
        images = folder
    masks = [folder / name for name in MASK_FOLDERS if (folder / name).is_dir() and defect != "normal"]
    return samples_in(images, category, defect, masks[0] if masks else None)


BMAD = Layout(
    name="bmad",
    expects=f"SET/train/good and SET/test/{DEFECTIVE}",
    find=find,
    collect=collect,
    licence="CC BY-NC-SA 4.0, non-commercial (BMAD); each of its sets also keeps its own terms",
)
