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

from kdlib.data.layout import Found, Layout, find_categories, refuse_images, samples_in, subfolders
from kdlib.data.records import Sample


def find(root: Path) -> dict[str, Path]:
    """The folders at `root` that hold train/good/rgb."""
    return find_categories(root, lambda folder: (folder / "train" / "good" / "rgb").is_dir())


def collect(folder: Path, category: str) -> Found:
    """The samples of one category.

    Raises:
        DatasetError: Images where folders belong, or a gt folder that lacks a mask.
    """
    good, validation = folder / "train" / "good", folder / "validation" / "good"
    refuse_images(folder, good.parent, good, validation.parent, validation)
    test: list[Sample] = []
    for part in subfolders(folder / "test"):
        refuse_images(part)
        if part.name == "good":
            test += samples_in(part / "rgb", category)
        else:
            masks = part / "gt"
            test += samples_in(part / "rgb", category, part.name, masks if masks.is_dir() else None)
    return Found(
        train=samples_in(good / "rgb", category),
        calib=samples_in(validation / "rgb", category),
        test=test,
    )


MVTEC3D = Layout(
    name="mvtec3d",
    expects="CATEGORY/train/good/rgb/*.png",
    find=find,
    collect=collect,
    licence="CC BY-NC-SA 4.0, non-commercial (MVTec 3D-AD)",
)
