"""One's own images, in the simplest folders that tell normal from defective; one category named like the folder.

    ROOT/*.jpg                        normal images, or all below ROOT/good (normal, ok, ...) or ROOT/train
    ROOT/test/good/*.jpg              normal images for the test (else a share of the normal ones is held out)
    ROOT/test/DEFECT/*.jpg            defective images, or ROOT/defects/DEFECT/*.jpg, or ROOT/defects/*.jpg
    ROOT/masks/DEFECT/STEM.png        the same path below masks/ (or ground_truth/), named STEM.png or STEM_mask.png;
                                      or STEM_mask.png beside its image

Everything but the normal images is optional.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kdlib.data.errors import DatasetError, readable
from kdlib.data.layout import DEFECT_NAMES, MASK_NAMES, NORMAL_NAMES, CategoryImages, Layout, is_normal, samples_in
from kdlib.data.listing import (
    child,
    folders_in,
    folders_with_images,
    has_images,
    image_files,
    refuse_folders,
    refuse_images,
)
from kdlib.data.samples import Sample

TRAINING_NAMES = (*NORMAL_NAMES, "train")


def find(root: Path) -> dict[str, Path]:
    """The folder itself, if it holds images, or a folder of normal images."""
    own = image_files(root) or any(has_images(part) for part in _named(root, TRAINING_NAMES))
    return {readable(root.name): root} if own else {}


def collect(folder: Path, category: str) -> CategoryImages:
    """The samples of one's own folder.

    Raises:
        DatasetError: Images in places that do not tell whether they are normal, or a mask folder that lacks a mask.
    """
    for part in folders_in(folder):
        if part.name.lower() not in (*TRAINING_NAMES, *DEFECT_NAMES, *MASK_NAMES, "test") and has_images(part):
            raise DatasetError(
                f"{part} holds images, but its name does not tell what they are. Name it after a kind of normal "
                f"images ({', '.join(TRAINING_NAMES)}), test, or {DEFECT_NAMES[0]}; or move it out of {folder}."
            )
    masks = child(folder, *MASK_NAMES)
    tested: list[Sample] = []
    for part in _named(folder, ("test", *DEFECT_NAMES)):
        if part.name.lower() != "test":
            tested += _defective(part, part, category, masks)
            continue
        refuse_images(part)
        for kind in folders_in(part):
            normal = is_normal(kind.name)
            tested += _normal(kind, category) if normal else _defective(kind, part, category, masks)
    return CategoryImages(train=_training(folder, category), test=tested)


def _training(folder: Path, category: str) -> list[Sample]:
    named = _named(folder, TRAINING_NAMES)
    if not named:
        return samples_in(folder, category)
    refuse_images(folder)
    samples: list[Sample] = []
    for part in named:
        if not is_normal(part.name):
            refuse_folders(part, NORMAL_NAMES, ", because training needs normal images only")
        samples += _normal(part, category)
    return samples


def _normal(part: Path, category: str) -> list[Sample]:
    """The normal images of a folder and of all folders below, sorted by path."""
    samples: list[Sample] = []
    for folder in folders_with_images(part):
        _refuse_names(folder, part, (*DEFECT_NAMES, *MASK_NAMES))
        samples += samples_in(folder, category)
    return sorted(samples, key=lambda sample: sample.path.as_posix())


def _defective(part: Path, base: Path, category: str, masks: Path | None) -> list[Sample]:
    """The defective images below `part`, whose masks have the same path below `masks` as they have below `base`.

    The first folder below `base` names the defect, or `base` itself.
    """
    samples: list[Sample] = []
    for folder in sorted(folders_with_images(part), key=Path.as_posix):
        _refuse_names(folder, base, (*NORMAL_NAMES, *MASK_NAMES))
        inner = folder.relative_to(base)
        defect = inner.parts[0] if inner.parts else base.name
        samples += samples_in(folder, category, defect, masks / inner if masks else None)
    return samples


def _refuse_names(folder: Path, base: Path, names: Iterable[str]) -> None:
    """Raise a `DatasetError` if a folder on the way from `base` to `folder` says something else than `base` does."""
    for name in folder.relative_to(base).parts:
        if name.lower() in names:
            raise DatasetError(
                f"{folder} is a folder '{name}' among the images of {base}, which means something else. Directly below "
                f"the data set's folder, normal images belong into good, test/good or train, defective ones into "
                f"{DEFECT_NAMES[0]} or test, masks into {MASK_NAMES[1]}."
            )


def _named(root: Path, names: Iterable[str]) -> list[Path]:
    return [part for part in folders_in(root) if part.name.lower() in names]


OWN = Layout(
    name="folder",
    expects="images directly in it, or in a sub-folder " + ", ".join(TRAINING_NAMES),
    find=find,
    collect=collect,
)
