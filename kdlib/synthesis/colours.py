"""Ten ways to change a texture's colours or direction, of which DRAEM applies three in a row.

Re-implemented with torchvision, since the library of the public code, imgaug, is no longer maintained: saturation is
multiplied where that adds to it, so that grey stays grey, and the range of the sharpness is ours.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

Change = Callable[[Tensor, torch.Generator], Tensor]


def uniform(low: float, high: float, generator: torch.Generator, *shape: int) -> Tensor:
    """Numbers in low..high."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def changed(image: Tensor, generator: torch.Generator, count: int = 3) -> Tensor:
    """An RGB image [3, H, W] in 0..1 after so many different changes out of ten, in random order."""
    for index in torch.randperm(len(CHANGES), generator=generator)[:count]:
        image = CHANGES[int(index)](image, generator).clamp(0, 1)
    return image


def _gamma(image: Tensor, generator: torch.Generator) -> Tensor:
    return image ** uniform(0.5, 2, generator, 3, 1, 1)


def _brightness(image: Tensor, generator: torch.Generator) -> Tensor:
    return image * uniform(0.8, 1.2, generator) + uniform(-30, 30, generator) / 255


def _sharpness(image: Tensor, generator: torch.Generator) -> Tensor:
    return tv.adjust_sharpness(image, float(uniform(0, 3, generator)))


def _hue_and_saturation(image: Tensor, generator: torch.Generator) -> Tensor:
    hue, saturation = uniform(-50, 50, generator, 2) / 255
    return tv.adjust_saturation(tv.adjust_hue(image, float(hue)), 1 + 2 * float(saturation))


def _solarise(image: Tensor, generator: torch.Generator) -> Tensor:
    chance, threshold = uniform(0, 1, generator), uniform(32, 128, generator) / 255
    return tv.solarize(image, float(threshold)) if chance < 0.5 else image


def _posterise(image: Tensor, generator: torch.Generator) -> Tensor:
    return tv.posterize(image, int(torch.randint(1, 8, (), generator=generator)))


def _invert(image: Tensor, generator: torch.Generator) -> Tensor:
    return 1 - image


def _autocontrast(image: Tensor, generator: torch.Generator) -> Tensor:
    return tv.autocontrast(image)


def _equalise(image: Tensor, generator: torch.Generator) -> Tensor:
    return tv.equalize(image)


def _turn(image: Tensor, generator: torch.Generator) -> Tensor:
    return tv.rotate(image, float(uniform(-45, 45, generator)), interpolation=InterpolationMode.BILINEAR)


CHANGES: tuple[Change, ...] = (
    _gamma,
    _brightness,
    _sharpness,
    _hue_and_saturation,
    _solarise,
    _posterise,
    _invert,
    _autocontrast,
    _equalise,
    _turn,
)
