"""One image on disk with what is known of it, and how it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from kdlib.data.errors import DatasetError
from kdlib.data.reading import open_image, open_mask


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image on disk. The label comes from the folder or list it was found in, never from its mask.

    Attributes:
        path: The image.
        category: The product it shows.
        defect: The kind of defect, "normal" for none.
        label: 0 normal, 1 anomalous.
        mask_path: Its mask, or a folder of masks that are joined.
    """

    path: Path
    category: str
    defect: str = "normal"
    label: int = 0
    mask_path: Path | None = None


def open_sample(sample: Sample, white: int | None = None) -> tuple[Image.Image, npt.NDArray[np.bool_] | None]:
    """Decode an image, upright 8-bit RGB, and its mask [h, w], where it has one, at the size of the file.

    A mask describes the image as a viewer shows it, after its EXIF rotation, and has exactly that size in the file.

    Raises:
        DatasetError: A file is missing or damaged, or the mask has another size than its image.
    """
    image = open_image(sample.path, white)
    if sample.mask_path is None:
        return image, None
    mask = open_mask(sample.mask_path)
    if mask.shape != (image.height, image.width):
        raise DatasetError(
            f"Mask {sample.mask_path} is {mask.shape[1]} x {mask.shape[0]} (width x height), its image {sample.path} "
            f"is {image.width} x {image.height}. Save the mask in the size and orientation in which the image is shown."
        )
    return image, mask
