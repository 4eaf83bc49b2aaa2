"""Whatever a user calls an image, as the one thing a network takes: float32 RGB at the working size.

All kinds go through the one resize that data sets use, so that one picture gets one score. That resize works on 8 bits:
floats are rounded to them, unless they have the working size already.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from kdlib.data.reading import open_image, resize_image, to_rgb
from kdlib.files import expanded

ImageLike: TypeAlias = str | bytes | bytearray | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor
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


def decoded(image: ImageLike, white: int | None = None) -> Image.Image | NDArray[Any]:
    """An image of any kind as an upright RGB picture, or as an array [H, W, 3] where it holds floats in 0..1.

    Args:
        image: The image.
        white: The value that becomes white, for 16-bit grey; see `kdlib.data.load`.

    Raises:
        ValueError: If it is no image, damaged, or its values have no known range.
    """
    if isinstance(image, (str, os.PathLike)):
        return open_image(expanded(image), white)
    if isinstance(image, (bytes, bytearray)):
        return open_image(bytes(image), white)
    if isinstance(image, Tensor):
        image = _array(image)
    if isinstance(image, np.ndarray):
        if image.dtype.kind == "f":
            return _floats(image)
        image = _integers(image)
    if not isinstance(image, Image.Image):
        raise ValueError(f"cannot read an image from {type(image).__name__}; {_EXPECTED}")
    if 0 in image.size:
        raise ValueError(f"the PIL image has {image.width} x {image.height} pixels; expected at least 1 x 1")
    try:
        image.load()
        return to_rgb(ImageOps.exif_transpose(image), white)
    except (OSError, SyntaxError, EOFError, struct.error) as error:
        raise ValueError(f"the PIL image cannot be decoded ({error}); replace its file by an intact copy") from error


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


def _array(image: Tensor) -> NDArray[Any]:
    """A tensor [C, H, W] as an array [H, W, C]; [H, W] stays."""
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[0] not in (1, 3)):
        raise ValueError(f"cannot read an image from a tensor {tuple(image.shape)}; {_EXPECTED}")
    if image.is_floating_point():
        image = image.float()
    array: NDArray[Any] = image.detach().cpu().numpy()
    return array.transpose(1, 2, 0) if array.ndim == 3 else array


def _channels(image: NDArray[Any], known: tuple[int, ...]) -> int:
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in known or not image.size:
        raise ValueError(f"cannot read an image from an array {image.shape} of {image.dtype}; {_EXPECTED}")
    return channels


def _integers(image: NDArray[Any]) -> Image.Image:
    channels = _channels(image, (1, 3, 4))
    image = image.astype(image.dtype.newbyteorder("="), copy=False)
    if image.dtype not in ((np.bool_, np.uint8, np.uint16) if channels == 1 else (np.uint8,)):
        raise ValueError(
            f"cannot read an image from an array of {image.dtype}; expected uint8, uint16 for grey, or floats in 0..1"
        )
    return Image.fromarray(np.ascontiguousarray(image[..., 0] if image.shape[2:] == (1,) else image))


def _floats(image: NDArray[Any]) -> NDArray[Any]:
    """Floats in 0..1 as [H, W, 3]."""
    _channels(image, (1, 3))
    if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
        raise ValueError(f"image values span {image.min():.3g} to {image.max():.3g}; expected floats in 0..1, or uint8")
    return np.broadcast_to(image[..., None] if image.ndim == 2 else image, (*image.shape[:2], 3))
