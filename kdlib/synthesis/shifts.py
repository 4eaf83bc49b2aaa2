"""Changes that are no defects: other light, colours, sharpness, noise, direction. For training pairs and test sets.

Source: VAND-GNL's code (second place of the VAND 2.0 challenge, CVPR 2024); mixing as in AugMix (Hendrycks et al., ICLR
2020), severities of corruptions from ImageNet-C (Hendrycks, Dietterich, ICLR 2019).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args
from zlib import crc32

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from kdlib.data import ImageSet, Sample
from kdlib.maps import gaussian_blur
from kdlib.synthesis.colours import Change, uniform

Corruption = Literal["brightness", "contrast", "blur", "noise", "rotation"]
_GREY = 114 / 255
_CHAINS = 3
_SIDE = 224  # px of the images for which ImageNet-C chose its blur


@dataclass(frozen=True, kw_only=True)
class Shifts:
    """A view of a training image: `image -> {"shifted"}`, the same product under other circumstances.

    Every second time a mix of the image and three chains of one to three changes, in random shares; else one such chain
    and a turn.

    Attributes:
        turned: Share of images that are turned, by a multiple of 90 degrees and up to 30 more; corners become grey.
    """

    turned: float = 0.5

    def __call__(self, image: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The shifted copy [3, H, W] of an image [3, H, W] in 0..1."""
        if float(torch.rand((), generator=generator)) < self.turned:
            return {"shifted": turned(_chain(image, generator), generator)}
        shares = -torch.rand(_CHAINS, generator=generator).clamp_min(1e-6).log()
        chains = torch.stack([_chain(image, generator) for _ in range(_CHAINS)])
        mixed = (shares[:, None, None, None] * chains).sum(0) / shares.sum()
        return {"shifted": torch.lerp(image, mixed, torch.rand((), generator=generator))}


def recoloured(image: Tensor, generator: torch.Generator, by: float) -> dict[str, Tensor]:
    """A view: the image [3, H, W] in 0..1 with another brightness, contrast or saturation, by up to a share `by`.

    Source: EfficientAD, for its autoencoder.
    """
    change = _LIGHT[int(torch.randint(len(_LIGHT), (), generator=generator))]
    return {"recoloured": change(image, 1 + by * (2 * float(torch.rand((), generator=generator)) - 1))}


def turned(image: Tensor, generator: torch.Generator) -> Tensor:
    """The image after 0 to 3 quarter turns, where it is square, and a turn of -30..30 degrees on grey."""
    if image.shape[-2] == image.shape[-1]:
        image = image.rot90(int(torch.randint(4, (), generator=generator)), (-2, -1))
    angle = float(uniform(-30, 30, generator))
    return tv.rotate(image, angle, interpolation=InterpolationMode.BILINEAR, fill=[_GREY] * 3)


def corrupt(image: Tensor, kind: Corruption, severity: int = 3, *, seed: int = 0) -> Tensor:
    """An image [3, H, W] in 0..1 that is corrupted in one way; `severity` 1..5, numbers of ImageNet-C but for turns.

    Raises:
        ValueError: If the kind is unknown or the severity is none of 1 to 5.
    """
    if kind not in get_args(Corruption) or severity not in range(1, 6):
        raise ValueError(f"got '{kind}' of severity {severity}; expected one of {get_args(Corruption)} and 1 to 5")
    generator = torch.Generator().manual_seed(seed)
    return _CORRUPTIONS[kind](image, severity - 1, generator).clamp(0, 1)


class Corrupted(ImageSet):
    """An image set whose images are all corrupted in one way; masks turn with their images.

    Args:
        images: The set.
        kind: `brightness`, `contrast`, `blur`, `noise` or `rotation`.
        severity: 1 to 5.
    """

    def __init__(self, images: ImageSet, kind: Corruption, severity: int = 3) -> None:
        super().__init__(images.samples, categories=images.categories, size=images.size, white=images.white)
        self.kind, self.severity = kind, severity
        corrupt(torch.zeros(3, 8, 8), kind, severity)

    def pixels(self, index: int) -> Tensor:
        return self._read(self.samples[index])[0]

    def fingerprint(self) -> str:
        return f"{super().fingerprint()} {self.kind} {self.severity}"

    def _read(self, sample: Sample) -> tuple[Tensor, Tensor]:
        pixels, mask = super()._read(sample)
        seed = crc32(f"{sample.category} {sample.path.parent.name} {sample.path.name}".encode())
        image = corrupt(pixels.float() / 255, self.kind, self.severity, seed=seed)
        if self.kind == "rotation":
            mask = corrupt(mask.float().expand(3, -1, -1), self.kind, self.severity, seed=seed)[:1] > 0.5
        return (image * 255).round().byte(), mask


def _chain(image: Tensor, generator: torch.Generator) -> Tensor:
    """One to three random changes in a row."""
    for _ in range(1 + int(torch.randint(3, (), generator=generator))):
        change = _CHANGES[int(torch.randint(len(_CHANGES), (), generator=generator))]
        image = change(image, generator).clamp(0, 1)
    return image


def _factor(change: Callable[[Tensor, float], Tensor]) -> Change:
    """A change by a factor in 0.4..1.6."""
    return lambda image, generator: change(image, float(uniform(0.4, 1.6, generator)))


def _noise(image: Tensor, generator: torch.Generator) -> Tensor:
    return image + uniform(0, 0.1, generator) * torch.randn(image.shape, generator=generator)


_LIGHT = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
_CHANGES: tuple[Change, ...] = (*map(_factor, (*_LIGHT, tv.adjust_sharpness)), _noise)


def _brighter(image: Tensor, level: int, generator: torch.Generator) -> Tensor:
    return image + 0.1 * (level + 1)


def _flatter(image: Tensor, level: int, generator: torch.Generator) -> Tensor:
    mean = image.mean((1, 2), keepdim=True)
    return mean + (0.4, 0.3, 0.2, 0.1, 0.05)[level] * (image - mean)


def _blurred(image: Tensor, level: int, generator: torch.Generator) -> Tensor:
    sigma = (1, 2, 3, 4, 6)[level] * min(image.shape[-2:]) / _SIDE
    return gaussian_blur(image[:, None], sigma)[:, 0]


def _noisy(image: Tensor, level: int, generator: torch.Generator) -> Tensor:
    return image + (0.08, 0.12, 0.18, 0.26, 0.38)[level] * torch.randn(image.shape, generator=generator)


def _rotated(image: Tensor, level: int, generator: torch.Generator) -> Tensor:
    angle = (5, 10, 15, 20, 30)[level] * (1 if torch.rand((), generator=generator) < 0.5 else -1)
    return tv.rotate(image, float(angle), interpolation=InterpolationMode.BILINEAR)


_CORRUPTIONS: dict[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "brightness": _brighter,
    "contrast": _flatter,
    "blur": _blurred,
    "noise": _noisy,
    "rotation": _rotated,
}
