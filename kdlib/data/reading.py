"""Read images and masks from files: any pixel format, any size, the orientation a viewer shows.

    file -> decode completely -> turn upright (EXIF) -> 8-bit RGB -> resize plainly -> uint8 [3, H, W]
    mask -> decode completely -> turn upright (EXIF) -> pixel > 0 -> area average    -> bool  [1, H, W]

Alpha channels of images are dropped. 16-bit grey is scaled by its full range (65535 becomes 255), never clipped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageFile, ImageOps
from torch import Tensor

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


class DatasetError(ValueError):
    """A data set on disk is not what it should be; the message says what was found and how to mend it."""


def open_image(path: Path) -> Image.Image:
    """Decode a whole image file as upright 8-bit RGB.

    Raises:
        DatasetError: The file is missing, truncated, damaged, or has floating-point or 32-bit pixels.
    """
    return _decode(path)


def open_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Decode a mask file, upright, [H, W]: True where any colour channel is above zero.

    Class numbers (VisA) and 0/255 masks give the same result. Transparent pixels are no defect. In JPEG masks a pixel
    must be above 127, because compression leaves faint grey around every edge.

    Raises:
        DatasetError: The file is missing, truncated or damaged.
    """
    image = _decode(path, rgb=False)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    values = np.asarray(image)
    background = 127 if path.suffix.lower() in (".jpg", ".jpeg") else 0
    if values.ndim == 2:
        return np.asarray(values > background)
    if image.mode.endswith("A"):
        values = values[..., :-1] * (values[..., -1:] > 0)
    return np.asarray((values > background).any(axis=-1))


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any decoded picture to 8-bit RGB; 16-bit grey is divided by 257, so that white stays white.

    Raises:
        ValueError: floating-point or 32-bit pixels, whose range nobody can know.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit pixels have no agreed range; save it with 8 or 16 bits")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "P":
        image = image.convert("RGBA")
    return image.convert("RGB")


def resize_image(image: Image.Image, size: tuple[int, int]) -> Tensor:
    """Resize an RGB picture to `size` = (H, W), bilinear with antialiasing, aspect ratio not kept; uint8 [3, H, W]."""
    height, width = size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image).transpose(2, 0, 1).copy())


def resize_mask(mask: npt.NDArray[np.bool_], size: tuple[int, int]) -> Tensor:
    """Resize a mask [h, w] to `size` = (H, W) by exact area average; bool [1, H, W].

    A pixel is defect when at least half of its area is. If that would erase the whole mask, every touched pixel counts
    instead: with nearest-neighbour or thresholded bilinear resizing, hair-thin defects vanish and leave an anomalous
    image without any anomalous pixel.
    """
    if mask.shape != size:
        share = _average(_average(mask, size[0]).T, size[1]).T
        half = share >= 0.5 - 1e-6
        mask = half if half.any() else share > 1e-6
    return torch.from_numpy(np.array(mask))[None]


def _average(values: npt.NDArray[Any], new: int) -> npt.NDArray[np.float64]:
    """Average along the first axis into `new` equal bins; a cumulative sum read at the (fractional) edges is exact."""
    old = len(values)
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
    edges = np.linspace(0, old, new + 1)
    below = np.minimum(edges.astype(np.int64), old - 1)
    at_edges = sums[below] + (edges - below)[:, None] * (sums[below + 1] - sums[below])
    return np.asarray(np.diff(at_edges, axis=0) * new / old)


def _decode(path: Path, rgb: bool = True) -> Image.Image:
    try:
        with _no_truncated_images(), Image.open(path) as file:
            file.load()
            upright = ImageOps.exif_transpose(file)
            return to_rgb(upright) if rgb else upright
    except _UNREADABLE as error:
        problem = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read as an image ({error})"
        raise DatasetError(f"{path} {problem}. Replace the file by an intact copy or remove it.") from error


@contextmanager
def _no_truncated_images() -> Iterator[None]:
    """Other packages switch this Pillow-wide setting on; a half-grey image would then pass as a whole one."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
