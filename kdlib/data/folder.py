"""One's own images, in the simplest folders that tell normal from defective; one category named like the folder.

    ROOT/*.jpg                        normal images, or all below ROOT/good (normal, ok, ...) or ROOT/train
    ROOT/test/good/*.jpg              normal images for the test (else a share of the normal ones is held out)
    ROOT/test/DEFECT/*.jpg            defective images, or ROOT/defects/DEFECT/*.jpg, or ROOT/defects/*.jpg
    ROOT/masks/DEFECT/STEM.png        the same path below masks/ (or ground_truth/), named STEM.png or STEM_mask.png;
                                      or STEM_mask.png beside its image

Everything but the normal images is optional.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    own = image_files(root) or any(has_images(part) for part in _training_folders(root))
    return {readable(root.name): root} if own else {}


def collect(folder: Path, category: str) -> CategoryImages:
    """The samples of one's own folder."""
    if _training_folders(folder):
        refuse_images(folder)
    refuse_images(child(folder, "test"))
    refuse_folders(child(folder, "train"), NORMAL_NAMES, ", because training needs normal images only")
    masks = child(folder, *MASK_NAMES)
    train: list[Sample] = []
    test: list[Sample] = []
    for place in folders_with_images(folder):
        parts = place.relative_to(folder).parts
        top = parts[0].lower() if parts else "train"
        if top in TRAINING_NAMES:
            _refuse_names(place, folder.joinpath(*parts[:1]), (*DEFECT_NAMES, *MASK_NAMES))
            train += samples_in(place, category)
        elif top == "test" and is_normal(parts[1]):
            _refuse_names(place, folder.joinpath(*parts[:2]), (*DEFECT_NAMES, *MASK_NAMES))
            test += samples_in(place, category)
        elif top in ("test", *DEFECT_NAMES):
            _refuse_names(place, folder / parts[0], (*NORMAL_NAMES, *MASK_NAMES))
            defect = parts[1] if len(parts) > 1 else parts[0]
            test += samples_in(place, category, defect, _masks_for(masks, parts[1:]))
        elif top not in MASK_NAMES:
            raise DatasetError(
                f"{folder / parts[0]} holds images, but its name does not tell what they are. Name it after a kind of "
                f"normal images ({', '.join(TRAINING_NAMES)}), test, or {DEFECT_NAMES[0]}; or move it out of {folder}."
            )
    return CategoryImages(train=sorted(train, key=lambda sample: sample.path.as_posix()), test=test)


def _masks_for(masks: Path | None, defect: Sequence[str]) -> Path | None:
    """The folder of masks of a kind of defect, whose name may be written in another case."""
    for name in defect:
        masks = masks and (child(masks, name.lower()) or masks / name)
    return masks


def _training_folders(root: Path) -> list[Path]:
    return [part for part in folders_in(root) if part.name.lower() in TRAINING_NAMES]


def _refuse_names(folder: Path, base: Path, names: tuple[str, ...]) -> None:
    """Raise a `DatasetError` if a folder on the way from `base` to `folder` says something else than `base` does."""
    for name in folder.relative_to(base).parts:
        if name.lower() in names:
            raise DatasetError(
                f"{folder} is a folder '{name}' among the images of {base}, which means something else. Directly below "
                f"the data set's folder, normal images belong into good, test/good or train, defective ones into "
                f"{DEFECT_NAMES[0]} or test, masks into {MASK_NAMES[1]}."
            )


OWN = Layout("folder", "images directly in it, or in a sub-folder " + ", ".join(TRAINING_NAMES), find, collect)
