"""Images of nothing in particular, for methods that must see something else than the product, and for distilling.

Every image is a pile of leaves: discs, boxes and polygons of a random size, small ones more often, each in a colour and
grain of its own. Piles of such leaves share with photographs what a network of small patches can learn from: edges that
hide each other, at all scales.

Source: Baradad et al., Learning to See by Looking at Noise, NeurIPS 2021 (dead leaves).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from kdlib.data.samples import Sample

GREY = 0.3
"""Share of images without colour."""
_SMALLEST, _LARGEST = 0.03, 0.4  # radius of a leaf, as a share of the image
_LEAVES, _GRAINS = 70, 4
_SIDE = 256
_VERSION = 1

Grain = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Drawn(Sample):
    """An image that is made when it is asked for, the same every time.

    Attributes:
        number: Of several that differ in nothing else.
    """

    number: int = 0

    def draw(self, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """The image [H, W, 3] of this height and width."""
        raise NotImplementedError

    def identity(self) -> str:
        """What decides its content, besides the size."""
        raise NotImplementedError


class Texture(Drawn):
    """A rendered image that is in no file; `path` is a name. What is larger than 256 px is enlarged."""

    def draw(self, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        factor = max(1, min(size) / _SIDE)
        drawn = pile(np.random.default_rng(self.number), (round(size[0] / factor), round(size[1] / factor)))
        return np.asarray(Image.fromarray(drawn).resize(size[::-1])) if factor > 1 else drawn

    def identity(self) -> str:
        return f"texture {_VERSION} {self.number}"


def pile(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """One image [H, W, 3], drawn from the generator."""
    leaf = _leaves(rng, size)
    colour = np.clip(rng.uniform(20, 235, (_LEAVES + 1, 1)) + rng.normal(0, 35, (_LEAVES + 1, 3)), 0, 255)
    if rng.random() < GREY:
        colour[:] = colour[:, :1]
    strength, kind = rng.exponential(14, _LEAVES + 1), rng.integers(0, _GRAINS, _LEAVES + 1)
    grains = np.stack([_grain(rng, size) for _ in range(_GRAINS)])
    grain = np.take_along_axis(grains, kind[leaf][None], 0)[0]
    return np.clip(colour[leaf] + (strength[leaf] * grain)[..., None], 0, 255).astype(np.uint8)


def _leaves(rng: np.random.Generator, size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """The number of the leaf on top [H, W], 0 where there is none; small leaves lie on large ones."""
    height, width = size
    numbers = Image.new("I", (width, height))
    canvas = ImageDraw.Draw(numbers)
    low, high = np.log(_SMALLEST), np.log(_LARGEST)
    radii = np.sort(np.exp(low + (high - low) * rng.random(_LEAVES) ** 2))[::-1] * min(size)
    for number, radius in enumerate(radii, 1):
        x, y = rng.uniform(0, 1, 2) * (width, height)
        corners = int(rng.integers(3, 7))
        if corners == 6:
            flat = radius * rng.uniform(0.4, 1)
            canvas.ellipse((x - radius, y - flat, x + radius, y + flat), fill=number)
        else:
            angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
            canvas.polygon([(x + radius * np.cos(a), y + radius * np.sin(a)) for a in angles], fill=number)
    return np.asarray(numbers)


def _grain(rng: np.random.Generator, size: tuple[int, int]) -> Grain:
    """Stripes [H, W], or noise of some coarseness; mean 0, about 1 in size."""
    height, width = size
    if rng.random() < 0.3:
        down, across = np.mgrid[:height, :width].astype(np.float32)
        angle, pitch = rng.uniform(0, np.pi), rng.uniform(3, 16)
        return np.sin(2 * np.pi / pitch * (np.cos(angle) * across + np.sin(angle) * down)).astype(np.float32)
    cell = int(2 ** rng.integers(0, 4))
    coarse = rng.normal(0, 1, (height // cell + 2, width // cell + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
