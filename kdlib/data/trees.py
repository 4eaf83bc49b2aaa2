"""The layouts with folders train and test: MVTec AD, which many sets share, and its kin.

    ROOT/CATEGORY/train/good/000.png
    ROOT/CATEGORY/test/{good,DEFECT}/000.png
    ROOT/CATEGORY/ground_truth/DEFECT/000_mask.png     (or 000.png); without the folder only image metrics are possible
    ROOT/CATEGORY/validation/good/000.png              becomes calib, so train keeps all its images; MVTec AD has none

`mvtec_loco`  MVTec LOCO AD has a folder of masks for each image, ground_truth/DEFECT/000/*.png; their union is the mask
              here. Its saturation values (defects_config.json) are left aside, so pixel metrics are those of every
              other set and not the saturated sPRO of the paper.
`mvtec_ad2`   MVTec AD 2 has test_public in place of test, with ground_truth inside. test_private and
              test_private_mixed, whose labels only the authors know, are not used.
`mvtec3d`     MVTec 3D-AD lies one folder deeper, {train,validation,test}/good/rgb/000.png, with masks beside it in
              test/DEFECT/gt; point clouds are not read. Published results differ in whether they train on validation.
`btad`        BTech_Dataset_transformed/{01,02,03} has train/ok, test/{ok,ko} and ground_truth/ko.
`bmad`        BMAD, six medical sets, has {train,valid,test}/good and {valid,test}/Ungood; where there are masks, images
              lie one folder deeper in img and masks beside it in anomaly_mask or label. valid/Ungood is not used,
              because nothing here is tuned on defects.

Sources: P. Bergmann et al., MVTec AD, CVPR 2019; Beyond Dents and Scratches, IJCV 2022; The MVTec 3D-AD Dataset, VISAPP
2022; L. Heckler-Kram et al., The MVTec AD 2 Dataset, arXiv 2503.21622; P. Mishra et al., VT-ADL, ISIE 2021; J. Bao et
al., BMAD, CVPR workshops 2024.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kdlib.data.errors import DatasetError
from kdlib.data.layout import (
    DEFECT_NAMES,
    MASK_NAMES,
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

AD_CATEGORIES = frozenset({
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw", "tile",
    "toothbrush", "transistor", "wood", "zipper",
})  # fmt: skip
LOCO_CATEGORIES = frozenset({"breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors"})
AD2_CATEGORIES = frozenset({"can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts"})
BTAD_CATEGORIES = frozenset({"01", "02", "03"})
VALIDATION_NAMES = ("validation", "valid", "val")
AD2_TEST, AD2_UNUSED = "test_public", ("test_private", "test_private_mixed")
NC = "CC BY-NC-SA 4.0, non-commercial"


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Reads a category with folders train and test.

    Attributes:
        images: Name of the folder, inside the one that tells the kind of defect, in which images lie one deeper.
        masks: Names that the folder of their masks beside it may have.
        unused: Names of folders there and in the category that hold nothing for us.
        defects: The kinds of defect that may occur, also in the validation set; none given: any, not in validation.
    """

    images: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()

    def __call__(self, folder: Path, category: str) -> CategoryImages:
        """The samples of one category."""
        public = child(folder, AD2_TEST)
        test = public or child(folder, "test")
        truth = child(folder, *MASK_NAMES) or child(test, *MASK_NAMES)
        refuse_images(folder, test, truth)
        tests = (AD2_TEST, *AD2_UNUSED) if public else ("test",)
        refuse_folders(folder, ("train", *tests, *VALIDATION_NAMES, *MASK_NAMES, *self.unused))
        return CategoryImages(
            train=self._normal(child(folder, "train"), category, NORMAL_NAMES),
            calib=self._normal(child(folder, *VALIDATION_NAMES), category, (*NORMAL_NAMES, *self.defects)),
            test=self._tested(test, truth, category),
        )

    def _normal(self, split: Path | None, category: str, allowed: tuple[str, ...]) -> list[Sample]:
        refuse_images(split)
        refuse_folders(split, allowed, ", because training and calibration need normal images only")
        return [sample for part in normal_folders(split) for sample in self._samples(part, category)]

    def _tested(self, test: Path | None, truth: Path | None, category: str) -> list[Sample]:
        parts = folders_in(test)
        if self.defects:
            refuse_folders(test, (*NORMAL_NAMES, *self.defects))
            parts.sort(key=lambda part: not is_normal(part.name))  # Ungood after good: fingerprints depend on the order
        samples: list[Sample] = []
        for part in parts:
            if part == truth:
                continue
            if part.name.lower() in MASK_NAMES:
                raise DatasetError(f"Masks lie in {truth} and in {part}. Put them into one of these folders.")
            if is_normal(part.name):
                samples += self._samples(part, category)
            else:
                masks = truth and (child(truth, part.name.lower()) or truth / part.name)
                samples += self._samples(part, category, part.name, masks)
        return samples

    def _samples(self, part: Path, category: str, defect: str = "normal", masks: Path | None = None) -> list[Sample]:
        """The images of one kind."""
        refuse_folders(part, (*self.images, *self.masks, *self.unused))
        deeper = child(part, *self.images)
        if deeper:
            refuse_images(part)
            refuse_folders(deeper)
        return samples_in(deeper or part, category, defect, child(part, *self.masks) or masks)


collect_mvtec = Tree()
COLOUR = Tree(images=("rgb",), masks=("gt",), unused=("xyz", "calibration"))
MEDICAL = Tree(images=("img",), masks=("anomaly_mask", "label"), defects=("ungood",))


def is_mvtec(folder: Path) -> bool:
    """Whether a folder is a category: train/good, and no folder that only one's own layout has."""
    own = any(part.name.lower() in DEFECT_NAMES for part in folders_in(folder))
    return not own and bool(normal_folders(child(folder, "train")))


def find_mvtec(root: Path) -> dict[str, Path]:
    """The folders at `root` that hold a folder train/good."""
    return find_categories(root, is_mvtec)


def _is_loco(folder: Path) -> bool:
    return is_mvtec(folder) and child(child(folder, "test"), "logical_anomalies") is not None


def _is_ad2(folder: Path) -> bool:
    return is_mvtec(folder) and child(folder, AD2_TEST) is not None


def _is_mvtec3d(folder: Path) -> bool:
    return any(child(part, "rgb") for part in normal_folders(child(folder, "train")))


def _is_bmad(folder: Path) -> bool:
    return bool(normal_folders(child(folder, "train"))) and child(child(folder, "test"), "ungood") is not None


def _find_btad(root: Path) -> dict[str, Path]:
    """The categories in BTech_Dataset_transformed, or at a root whose categories have train/ok."""
    inner = child(root, "btech_dataset_transformed")
    categories = find_mvtec(inner or root)
    with_ok = [name for name, folder in categories.items() if child(child(folder, "train"), "ok")]
    ours = len(with_ok) == len(categories) or (with_ok and BTAD_CATEGORIES.issuperset(categories))
    return categories if inner or ours else {}


def _layout(
    name: str,
    expects: str,
    is_category: Callable[[Path], bool],
    published: str,
    licensed: frozenset[str] | None = None,
    tree: Tree = collect_mvtec,
) -> Layout:
    find = partial(find_categories, is_category=is_category)
    return Layout(name, expects, find, tree, f"{NC} ({published})", licensed)


MVTEC = _layout("mvtec", "CATEGORY/train/good/*.png", is_mvtec, "MVTec AD", AD_CATEGORIES)
LOCO = _layout(
    "mvtec_loco", "CATEGORY/train/good and CATEGORY/test/logical_anomalies", _is_loco, "MVTec LOCO AD", LOCO_CATEGORIES
)
AD2 = _layout("mvtec_ad2", "CATEGORY/train/good and CATEGORY/test_public", _is_ad2, "MVTec AD 2", AD2_CATEGORIES)
MVTEC3D = _layout("mvtec3d", "CATEGORY/train/good/rgb/*.png", _is_mvtec3d, "MVTec 3D-AD", tree=COLOUR)
BMAD = _layout(
    "bmad",
    "SET/train/good and SET/test/Ungood",
    _is_bmad,
    "BMAD; its sets keep their own terms too",
    tree=MEDICAL,
)
BTAD = Layout(
    "btad",
    "BTech_Dataset_transformed/CATEGORY/train/ok/*.bmp",
    _find_btad,
    collect_mvtec,
    f"{NC} (BTAD)",
    BTAD_CATEGORIES,
)
