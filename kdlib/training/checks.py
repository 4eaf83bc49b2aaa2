"""Image sets that cannot be trained on are refused before anything runs."""

from __future__ import annotations

from kdlib.data import ImageSet


def check_sets(images: ImageSet, held_out: ImageSet | None, auxiliary: ImageSet | None) -> None:
    """Checks the sets that `fit` is given.

    Raises:
        ValueError: If a set is empty, has another size than the training images, or holds anomalous images where only
            normal ones may be.
    """
    if not isinstance(images, ImageSet):
        raise ValueError(f"images is a {type(images).__name__}; expected an image set, such as data.train")
    _check(images, "training images")
    if held_out is not None:
        _check(held_out, "held-out images", size=images.size)
    if auxiliary is not None and (not len(auxiliary) or auxiliary.size != images.size):
        raise ValueError(f"auxiliary is {auxiliary}; expected some images of {images.size[0]} x {images.size[1]} px")


def _check(images: ImageSet, name: str, size: tuple[int, int] | None = None) -> None:
    if not len(images):
        raise ValueError(f"there are no {name}; expected at least one normal image")
    if images.labels.any():
        raise ValueError(f"{int(images.labels.sum())} {name} are anomalous; fit() takes normal images only")
    if size and images.size != size:
        raise ValueError(f"{name} are {images.size} px, training images {size}; load both at one size")
