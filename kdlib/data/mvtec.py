"""The layout of MVTec AD, which many sets share, and that of its successors MVTec LOCO AD and MVTec AD 2.

    ROOT/CATEGORY/train/good/000.png
    ROOT/CATEGORY/test/good/000.png
    ROOT/CATEGORY/test/DEFECT/000.png
    ROOT/CATEGORY/ground_truth/DEFECT/000_mask.png     (or 000.png); without the folder only image metrics are possible
    ROOT/CATEGORY/validation/good/000.png              becomes calib, so train keeps all its images; MVTec AD has none

MVTec LOCO AD has a folder of masks for each image, `ground_truth/{logical_anomalies,structural_anomalies}/000/*.png`;
their union is the mask here. Its saturation values (`defects_config.json`: the area that suffices for a defect) are
left aside, so pixel metrics are those of every other set and not the saturated sPRO of the paper.

MVTec AD 2 has `test_public` in place of `test`, with `ground_truth` inside. `test_private` and `test_private_mixed`,
whose labels only the authors know, are not used.

Sources: P. Bergmann et al., MVTec AD, CVPR 2019; P. Bergmann et al., Beyond Dents and Scratches, IJCV 2022;
L. Heckler-Kram et al., The MVTec AD 2 Dataset, arXiv 2503.21622.
"""

from __future__ import annotations

from pathlib import Path

from kdlib.data.errors import DatasetError
from kdlib.data.layout import (
    DEFECT_NAMES,
    MASK_NAMES,
    CategoryImages,
    Layout,
    find_categories,
    is_normal,
    normal_folders,
    normal_images,
    samples_in,
)
from kdlib.data.listing import child, folders_in, refuse_folders, refuse_images
from kdlib.data.samples import Sample

AD_CATEGORIES = frozenset({
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw", "tile",
    "toothbrush", "transistor", "wood", "zipper",
})  # fmt: skip
LOCO_CATEGORIES = frozenset({"breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"})
AD2_CATEGORIES = frozenset({"can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts"})
LOCO_DEFECT = "logical_anomalies"
VALIDATION_NAMES = ("validation", "valid", "val")
AD2_TEST = "test_public"
AD2_UNUSED = ("test_private", "test_private_mixed")


def is_mvtec(folder: Path) -> bool:
    """Whether a folder is a category: train/good, and no folder that only one's own layout has."""
    own = any(part.name.lower() in DEFECT_NAMES for part in folders_in(folder))
    return not own and bool(normal_folders(child(folder, "train")))


def find_mvtec(root: Path) -> dict[str, Path]:
    """The folders at `root` that hold a folder train/good."""
    return find_categories(root, is_mvtec)


def collect_mvtec(folder: Path, category: str) -> CategoryImages:
    """The samples of one category of any of these data sets.

    Raises:
        DatasetError: Images in places that no split takes, or a ground_truth folder that lacks a mask.
    """
    public = child(folder, AD2_TEST)
    test = public or child(folder, "test")
    truth = child(folder, *MASK_NAMES) or (child(test, *MASK_NAMES) if test else None)
    refuse_images(folder, test, truth)
    tests = (AD2_TEST, *AD2_UNUSED) if public else ("test",)
    refuse_folders(folder, ("train", *tests, *VALIDATION_NAMES, *MASK_NAMES))
    return CategoryImages(
        train=normal_images(child(folder, "train"), category),
        calib=normal_images(child(folder, *VALIDATION_NAMES), category),
        test=_tested(test, truth, category) if test else [],
    )


def _tested(test: Path, truth: Path | None, category: str) -> list[Sample]:
    samples: list[Sample] = []
    for part in folders_in(test):
        if part == truth:
            continue
        if part.name.lower() in MASK_NAMES:
            raise DatasetError(f"Masks lie in {truth} and in {part}. Put them into one of these folders.")
        if is_normal(part.name):
            samples += samples_in(part, category)
        else:
            masks = truth and (child(truth, part.name.lower()) or truth / part.name)
            samples += samples_in(part, category, part.name, masks)
    return samples


def _is_loco(folder: Path) -> bool:
    test = child(folder, "test")
    return is_mvtec(folder) and test is not None and child(test, LOCO_DEFECT) is not None


def _is_ad2(folder: Path) -> bool:
    return is_mvtec(folder) and child(folder, AD2_TEST) is not None


MVTEC = Layout(
    name="mvtec",
    expects="CATEGORY/train/good/*.png",
    find=find_mvtec,
    collect=collect_mvtec,
    licence="CC BY-NC-SA 4.0, non-commercial (MVTec AD)",
    licensed=AD_CATEGORIES,
)
LOCO = Layout(
    name="mvtec_loco",
    expects="CATEGORY/train/good/*.png and CATEGORY/test/logical_anomalies/*.png",
    find=lambda root: find_categories(root, _is_loco),
    collect=collect_mvtec,
    licence="CC BY-NC-SA 4.0, non-commercial (MVTec LOCO AD)",
    licensed=LOCO_CATEGORIES,
)
AD2 = Layout(
    name="mvtec_ad2",
    expects="CATEGORY/train/good/*.png and CATEGORY/test_public",
    find=lambda root: find_categories(root, _is_ad2),
    collect=collect_mvtec,
    licence="CC BY-NC-SA 4.0, non-commercial (MVTec AD 2)",
    licensed=AD2_CATEGORIES,
)
