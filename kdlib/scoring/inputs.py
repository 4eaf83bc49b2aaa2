"""Whatever a user calls an image, as the one thing a network takes: float32 RGB at the working size."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from kdlib.data.reading import open_image, resize_image, to_rgb

ImageLike: TypeAlias = str | bytes | bytearray | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor
_DAMAGED = (OSError, SyntaxError, EOFError, struct.error)
_INTEGERS = (np.bool_, np.uint8, np.uint16)
_EXPECTED = (
    "expected a path, the bytes of an image file, a PIL image, an array [H, W] or [H, W, 3], or a tensor [3, H, W] or "
    "[1, H, W]"
)


def as_list(images: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    """One image, several, or a stack of arrays or tensors, as a list."""
    if isinstance(images, (Tensor, np.ndarray)):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, (str, bytes, bytearray, os.PathLike, Image.Image)):
        return [images]
    if not isinstance(images, Sequence):
        raise ValueError(f"cannot read an image from {type(images).__name__}; {_EXPECTED}, or a list of these")
    return list(cast("Sequence[ImageLike]", images))


def as_input(image: ImageLike, size: tuple[int, int], white: int | None = None) -> Tensor:
    """An image of any kind as float32 RGB [3, H, W] in 0..1 at the working size.

    All kinds go through the one resize that data sets use, so that one picture gets one score. That resize works on
    8 bits: floats are rounded to them, unless they have the working size already.

    Raises:
        ValueError: If it is no image, damaged, or its values have no known range.
    """
    return resized(decoded(image, white), size)


def decoded(image: ImageLike, white: int | None = None) -> Image.Image | NDArray[Any]:
    """An image of any kind as an upright RGB picture, or as an array [H, W, 3] where it holds floats in 0..1.

    Args:
        image: The image.
        white: The value that becomes white, for 16-bit grey; see `kdlib.data.load`.

    Raises:
        ValueError: If it is no image, damaged, or its values have no known range.
    """
    if isinstance(image, Tensor):
        image = _array(image)
    if isinstance(image, np.ndarray) and image.dtype.kind == "f":
        return _checked(image)
    return _picture(image, white)


def size_of(picture: Image.Image | NDArray[Any]) -> tuple[int, int]:
    """Height and width of what `decoded` gives."""
    return picture.shape[:2] if isinstance(picture, np.ndarray) else (picture.height, picture.width)


def resized(picture: Image.Image | NDArray[Any], size: tuple[int, int]) -> Tensor:
    """What `decoded` gives as float32 RGB [3, H, W] in 0..1 at the working size."""
    if isinstance(picture, np.ndarray):
        if size_of(picture) == tuple(size):
            return torch.from_numpy(picture.astype(np.float32).transpose(2, 0, 1).copy())
        picture = Image.fromarray(np.round(picture * 255).astype(np.uint8))
    return resize_image(picture, size).float() / 255


def _picture(image: ImageLike, white: int | None) -> Image.Image:
    if isinstance(image, (str, os.PathLike)):
        return open_image(Path(image), white)
    if isinstance(image, (bytes, bytearray)):
        return open_image(bytes(image), white)
    if isinstance(image, np.ndarray):
        channels = image.shape[2] if image.ndim == 3 else 1
        if image.ndim not in (2, 3) or channels not in (1, 3, 4) or image.dtype not in _INTEGERS or not image.size:
            raise ValueError(f"cannot read an image from an array {image.shape} of {image.dtype}; {_EXPECTED}")
        if channels > 1 and image.dtype != np.uint8:
            raise ValueError(f"cannot read colours from an array of {image.dtype}; expected uint8, or floats in 0..1")
        image = Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[2:] == (1,) else image))
    if not isinstance(image, Image.Image):
        raise ValueError(f"cannot read an image from {type(image).__name__}; {_EXPECTED}")
    try:
        image.load()
        return to_rgb(ImageOps.exif_transpose(image), white)
    except _DAMAGED as error:
        raise ValueError(f"the PIL image cannot be decoded ({error}); replace its file by an intact copy") from error


def _array(image: Tensor) -> NDArray[Any]:
    """A tensor [C, H, W] as an array [H, W, C]; [H, W] stays."""
    if (image.ndim == 3 and image.shape[0] not in (1, 3)) or image.ndim not in (2, 3):
        raise ValueError(f"cannot read an image from a tensor {tuple(image.shape)}; {_EXPECTED}")
    if image.is_floating_point():
        image = image.float()
    array: NDArray[Any] = image.detach().cpu().numpy()
    return array.transpose(1, 2, 0) if array.ndim == 3 else array


def _checked(image: NDArray[Any]) -> NDArray[Any]:
    """Floats in 0..1 as [H, W, 3]."""
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size:
        raise ValueError(f"cannot read an image from an array {image.shape} of {image.dtype}; {_EXPECTED}")
    if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
        raise ValueError(f"image values span {image.min():.3g} to {image.max():.3g}; expected floats in 0..1, or uint8")
    return np.broadcast_to(image, (*image.shape[:2], 3))
