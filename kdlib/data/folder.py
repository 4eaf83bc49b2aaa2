"""Two layouts for images that lie in folders: MVTec AD's, and the simplest that one's own images can have.

MVTec layout (MVTec AD, the rendered workshop, many others); without `ground_truth` only image metrics are possible:

    ROOT/CATEGORY/train/good/000.png
    ROOT/CATEGORY/test/good/000.png
    ROOT/CATEGORY/test/DEFECT/000.png
    ROOT/CATEGORY/ground_truth/DEFECT/000_mask.png   (or 000.png)

Own folder, one category named like the folder; everything but the normal images is optional:

    ROOT/*.jpg                        normal images, or all images below ROOT/normal, ROOT/good, ROOT/ok, ROOT/train
    ROOT/test/good/*.jpg              normal images for the test (else a share of the normal ones is held out)
    ROOT/test/DEFECT/*.jpg            defective images, or ROOT/defects/DEFECT/*.jpg, or ROOT/defects/*.jpg
    ROOT/masks/DEFECT/STEM.png        the same path below masks/ (or ground_truth/), named STEM.png or STEM_mask.png;
                                      or STEM_mask.png beside its image

Source: P. Bergmann et al., MVTec AD, CVPR 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from kdlib.data.layout import (
    Found,
    Layout,
    find_categories,
    folders_in,
    images_below,
    images_in,
    refuse_images,
    samples_in,
    subfolders,
)
from kdlib.data.reading import DatasetError
from kdlib.data.records import Sample

MVTEC_CATEGORIES = frozenset({
    "bottle", "cable", "capsule", "carpet", "grid", "hazelnut", "leather", "metal_nut", "pill", "screw", "tile",
    "toothbrush", "transistor", "wood", "zipper",
})  # fmt: skip
NORMAL_FOLDERS = ("normal", "good", "ok", "train")
DEFECT_FOLDERS = ("defects", "defect", "defective", "anomalies", "anomaly", "anomalous", "abnormal", "bad", "ko", "ng")
MASK_FOLDERS = ("masks", "mask", "ground_truth")


def find_mvtec(root: Path) -> dict[str, Path]:
    """The folders at `root` that hold a folder train/good."""
    return find_categories(root, lambda folder: (folder / "train" / "good").is_dir())


def collect_mvtec(folder: Path, category: str, good: str = "good") -> Found:
    """The samples of one MVTec-like category; `good` is the name of the folders with normal images.

    Raises:
        DatasetError: Images where folders belong, or a ground_truth folder that lacks a mask.
    """
    truth = folder / "ground_truth"
    refuse_images(folder, folder / "train", truth)
    test: list[Sample] = []
    for part in subfolders(folder / "test"):
        if part.name in (good, "normal"):
            test += samples_in(part, category)
        else:
            test += samples_in(part, category, part.name, truth / part.name if truth.is_dir() else None)
    return Found(train=samples_in(folder / "train" / good, category), test=test)


def find_own(root: Path) -> dict[str, Path]:
    """The folder itself, if it holds images, or a folder of normal images."""
    return {root.name: root} if images_in(root) or any(map(images_below, _named(root, NORMAL_FOLDERS))) else {}


def collect_own(folder: Path, category: str) -> Found:
    """The samples of one's own folder.

    Raises:
        DatasetError: Images in places that do not tell whether they are normal, or a mask folder that lacks a mask.
    """
    for part in folders_in(folder):
        if part.name.lower() not in (*NORMAL_FOLDERS, *DEFECT_FOLDERS, *MASK_FOLDERS, "test") and images_below(part):
            raise DatasetError(
                f"{part} holds images, but its name does not tell what they are. Name it after a kind of normal "
                f"images ({', '.join(NORMAL_FOLDERS)}), test, or {DEFECT_FOLDERS[0]}; or move it out of {folder}."
            )
    refuse_images(*_named(folder, ("test",)))
    masks = next(iter(_named(folder, MASK_FOLDERS)), None)
    test = [s for part in _named(folder, ("test", *DEFECT_FOLDERS)) for s in _tested(part, category, masks)]
    return Found(train=[Sample(path=path, category=category) for path in _normal_images(folder)], test=test)


def _normal_images(folder: Path) -> list[Path]:
    named = _named(folder, NORMAL_FOLDERS)
    if not named:
        return images_in(folder)
    refuse_images(folder)
    images = [path for part in named for path in images_below(part)]
    for path in images:
        if any(name.lower() in DEFECT_FOLDERS for name in path.relative_to(folder).parts[1:-1]):
            raise DatasetError(
                f"{path} lies in a folder for defective images, among the normal images of {folder}. Training "
                f"needs normal images only: move the defective ones to {folder / DEFECT_FOLDERS[0]}."
            )
    return images


def _tested(part: Path, category: str, masks: Path | None) -> list[Sample]:
    """The test images below `part`; the first folder below it names the defect, or says that they are normal."""
    samples: list[Sample] = []
    for parent in sorted({path.parent for path in images_below(part)}, key=Path.as_posix):
        inner = parent.relative_to(part)
        defect = inner.parts[0] if inner.parts else part.name
        if defect.lower() in NORMAL_FOLDERS:
            samples += samples_in(parent, category)
        elif masks is not None:
            samples += samples_in(parent, category, defect, masks / inner)
        else:
            samples += _with_masks_beside(images_in(parent), category, defect)
    return samples


def _with_masks_beside(images: Sequence[Path], category: str, defect: str) -> list[Sample]:
    stems = {path.stem for path in images}
    masks = {p.stem.removesuffix("_mask"): p for p in images if p.stem.endswith("_mask")}
    masks = {stem: path for stem, path in masks.items() if stem in stems}
    return [
        Sample(path=path, category=category, defect=defect, label=1, mask_path=masks.get(path.stem))
        for path in images
        if path not in masks.values()
    ]


def _named(folder: Path, names: Iterable[str]) -> list[Path]:
    return [part for part in folders_in(folder) if part.name.lower() in names]


MVTEC = Layout(
    name="mvtec",
    expects="CATEGORY/train/good/*.png",
    find=find_mvtec,
    collect=collect_mvtec,
    licence="CC BY-NC-SA 4.0, non-commercial (MVTec AD)",
    licensed=MVTEC_CATEGORIES,
)
OWN = Layout(
    name="folder",
    expects="images directly in it, or in a sub-folder " + ", ".join(NORMAL_FOLDERS),
    find=find_own,
    collect=collect_own,
)
