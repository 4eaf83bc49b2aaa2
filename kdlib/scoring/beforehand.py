"""What would stop an evaluation, found before hours of training instead of after them."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from kdlib import maps
from kdlib.config import DistillerConfig
from kdlib.data.reading import DatasetError
from kdlib.data.records import ImageSet

_ORIENTATION, _LYING = 0x0112, (5, 6, 7, 8)  # EXIF: values that swap height and width


def check_size(config: DistillerConfig, size: tuple[int, int]) -> None:
    """Checks that images of this working size get a score.

    Raises:
        ValueError: If the image score averages more pixels than the map has inside its margin.
    """
    maps.image_score(torch.zeros(1, 1, *size), config.top_k, config.margin)


def check_masks(images: ImageSet) -> None:
    """Checks that every mask has the size of its image, by the headers of both files; nothing is decoded.

    Raises:
        DatasetError: If one has another size, or a file cannot be opened.
    """
    for sample in images.samples:
        if sample.mask_path is None:
            continue
        image, mask = _size(sample.path), _size(sample.mask_path)
        if image != mask:
            raise DatasetError(
                f"Mask {sample.mask_path} is {mask[0]} x {mask[1]} (width x height), its image {sample.path} is "
                f"{image[0]} x {image[1]}. Save the mask in the size and orientation in which the image is shown."
            )


def _size(path: Path) -> tuple[int, int]:
    """Width and height of an image as a viewer shows it."""
    try:
        with Image.open(path) as file:
            width, height = file.size
            return (height, width) if file.getexif().get(_ORIENTATION) in _LYING else (width, height)
    except (OSError, SyntaxError, ValueError) as error:
        raise DatasetError(f"{path} cannot be opened as an image ({error}). Replace it by an intact copy.") from error
