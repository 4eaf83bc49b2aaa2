"""What cannot be trained on is refused before anything runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from kdlib.config import check_kind
from kdlib.data import ImageSet


def check_sets(images: ImageSet, held_out: ImageSet | None, auxiliary: ImageSet | None) -> None:
    """Refuses sets that are empty or of another size, and anomalous images where only normal ones may be."""
    check_kind("images", images, ImageSet, "an image set, such as data.train")
    for part, name in ((images, "training images"), (held_out, "held-out images")):
        if part is None:
            continue
        if not len(part):
            raise ValueError(f"there are no {name}; expected at least one normal image")
        if part.labels.any():
            raise ValueError(f"{int(part.labels.sum())} {name} are anomalous; fit() takes normal images only")
        if part.size != images.size:
            raise ValueError(f"{name} are {part.size} px, training images {images.size}; load both at one size")
    if auxiliary is not None and (not len(auxiliary) or auxiliary.size != images.size):
        raise ValueError(f"auxiliary is {auxiliary}; expected some images of {images.size[0]} x {images.size[1]} px")


@contextmanager
def enough_values(images: Tensor) -> Iterator[None]:
    """Says what to change where a batch [B, 3, H, W] is too small for batch normalisation in training.

    Raises:
        ValueError: If a channel has a single value in the whole batch: one image at one position.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ValueError(
            f"a batch {list(images.shape)} leaves batch normalisation a single value per channel; expected two or "
            "more: load the images at a larger size, or raise batch_size (and have as many training images)"
        ) from error
