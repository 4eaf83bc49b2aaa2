"""Images and masks as arrays of one size: any pixel format, any size, the orientation a viewer shows.

    file -> decode completely -> turn upright (EXIF) -> 8-bit RGB -> resize plainly -> uint8 [3, H, W]
    mask -> decode completely -> turn upright (EXIF) -> pixel > 0 -> area average    -> bool  [1, H, W]

Alpha channels of images are dropped. 16-bit grey is scaled by its white level, by default its full range (65535 becomes
255). Cameras with 10 or 12 bits need `white=1023` or `white=4095`; what is brighter becomes white.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from kdlib.data.decoding import decode
from kdlib.data.errors import DatasetError
from kdlib.data.listing import image_files

WHITE = 65535
_DEPTHS = {255: 8, 1023: 10, 4095: 12}  # brightest value: bits


def open_image(source: Path | bytes, white: int | None = None) -> Image.Image:
    """Decode a whole image file, given by its path or its bytes, as upright 8-bit RGB.

    Args:
        source: The file.
        white: The value that becomes white, for files of 16-bit grey; `None`: 65535.

    Raises:
        DatasetError: The file is missing, truncated, damaged, or has floating-point or 32-bit pixels; or a white level
            is given for 16-bit colour.
    """
    decoded = decode(source)
    name = "the image" if isinstance(source, bytes) else str(source)
    if decoded.deep_colour and white not in (None, WHITE):
        raise DatasetError(
            f"{name} has 16 bits per colour channel; a white level ({white}) works for 16-bit grey only. Save it "
            f"with 8 bits per channel."
        )
    try:
        image = to_rgb(decoded.image, white)
    except ValueError as error:
        raise DatasetError(f"{name} cannot be read as an image: {error}.") from error
    if decoded.deep_colour and white is None:
        _warn_if_dark_colour(image)
    return image


def open_mask(path: Path) -> npt.NDArray[np.bool_]:
    """Decode a mask, upright, [H, W]: True where any colour channel is above zero.

    Transparent pixels are no defect. In masks that are stored as JPEG, lossy WebP or TIFF with JPEG compression a pixel
    must be above 127, because compression leaves faint grey around every edge. A folder of masks of one image is joined
    (MVTec LOCO AD).

    Raises:
        DatasetError: A file is missing, truncated or damaged, or has colours of print (CMYK); a folder holds no masks,
            or masks of different sizes.
    """
    if not path.is_dir():
        return _mask(path)
    masks = [_mask(part) for part in image_files(path)]
    if len({mask.shape for mask in masks}) != 1:
        sizes = sorted({f"{mask.shape[1]} x {mask.shape[0]}" for mask in masks}) or ["no masks"]
        raise DatasetError(f"The folder {path} holds {', '.join(sizes)}; expected masks of one image, of its size.")
    return np.asarray(np.logical_or.reduce(masks))


def to_rgb(image: Image.Image, white: int | None = None) -> Image.Image:
    """Convert any decoded picture to 8-bit RGB; 16-bit grey is scaled so that `white`, by default 65535, becomes 255.

    Warns where the default leaves hardly any grey levels, because the pixels have only 8, 10 or 12 bits.

    Raises:
        ValueError: Floating-point or 32-bit pixels, whose range nobody can know.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > WHITE:
            raise ValueError("32-bit pixels have no agreed range; save it with 8 or 16 bits")
        if white is None:
            _warn_if_dark(int(values.max()))
        level = white or WHITE
        image = Image.fromarray(np.minimum((values * 255 + level // 2) // level, 255).astype(np.uint8))
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
    instead: with nearest-neighbour resizing, all that torchvision has for masks, hair-thin defects vanish. Parts of a
    mask smaller than that vanish beside larger ones.
    """
    if mask.shape != size:
        share = _average(_average(mask, size[0]).T, size[1]).T
        half = share >= 0.5 - 1e-6
        mask = half if half.any() else share > 1e-6
    return torch.from_numpy(np.array(mask))[None]


def _mask(path: Path) -> npt.NDArray[np.bool_]:
    decoded = decode(path)
    image = decoded.image
    if image.mode == "CMYK":  # black is any of many mixtures of inks, few of which become RGB zeros
        raise DatasetError(
            f"Mask {path} has colours of print (CMYK), in which black is not one colour; expected grey, a palette or "
            "RGB, zero where there is no defect. Save it as a grey PNG."
        )
    if image.mode in ("P", "PA", "YCbCr"):
        image = image.convert("RGB" if image.mode == "YCbCr" else "RGBA")
    values = np.asarray(image)
    background = 127 if decoded.lossy else 0
    if values.ndim == 2:
        return np.asarray(values > background)
    if image.mode.endswith("A"):
        values = values[..., :-1] * (values[..., -1:] > 0)
    return np.asarray((values > background).any(axis=-1))


def _warn_if_dark(brightest: int) -> None:
    """The text names no file, so that Python shows it once and not for each of ten thousand."""
    level = next((level for level in _DEPTHS if brightest <= level), None)
    if brightest and level:
        left = (level * 255 + WHITE // 2) // WHITE + 1
        warnings.warn(
            f"A 16-bit image has no pixel above {level}: scaled by 65535, {left} grey levels are left. If its camera "
            f"has {_DEPTHS[level]} bits, give white={level} to load(); if the image is just dark, give white=65535.",
            stacklevel=3,
        )


def _warn_if_dark_colour(image: Image.Image) -> None:
    brightest = int(np.asarray(image).max())
    if 0 < brightest <= 4095 >> 8:
        warnings.warn(
            f"An image with 16 bits per colour channel has no pixel above {(brightest << 8) + 255} of 65535, which "
            f"leaves {brightest + 1} levels. If its camera has 10 or 12 bits, save the files with 8 bits per channel.",
            stacklevel=3,
        )


def _average(values: npt.NDArray[Any], new: int) -> npt.NDArray[np.float64]:
    """Average along the first axis into `new` equal bins; a cumulative sum read at the (fractional) edges is exact."""
    old = len(values)
    sums = np.pad(np.cumsum(values, axis=0, dtype=np.float64), ((1, 0), (0, 0)))
    edges = np.linspace(0, old, new + 1)
    below = np.minimum(edges.astype(np.int64), old - 1)
    at_edges = sums[below] + (edges - below)[:, None] * (sums[below + 1] - sums[below])
    return np.asarray(np.diff(at_edges, axis=0) * new / old)
