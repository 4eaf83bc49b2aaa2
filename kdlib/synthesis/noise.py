"""A rectangle of noise on a normal image, which stands for the defects that training never shows.

Lengths are in pixels of a 256 px image and scale with the image, so that the same pattern covers the same part of it.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from opensimplex import OpenSimplex
from torch import Tensor

Noise = Literal["simplex", "bands"]

_COARSEST = 32.0  # wavelength of the first octave, in pixels
_SLOPE = 1 - math.log2(0.6)  # amplitude over frequency in the plane; each octave then has 0.6 of the former's
_DEVIATION = 0.45  # root mean square of simplex octaves in such rectangles, which the bands get too


def noisy_patch(
    image: Tensor,
    generator: torch.Generator,
    *,
    noise: Noise = "simplex",
    strength: float = 0.2,
    patch: tuple[float, float] = (10.0, 32.0),
) -> Tensor:
    """The image [3, H, W] in 0..1 with noise in one random rectangle, not clipped.

    Args:
        image: Normal image; stays as it is.
        generator: Decides place, size and pattern.
        noise: `simplex` as published, some tenths of a second for an image of 256 px unless numba is installed; `bands`
            is its fast stand-in: Gaussian noise with the same spectrum and strength, grey instead of almost grey.
        strength: Factor of the noise, whose root mean square is 0.45.
        patch: Smallest height and width of the rectangle, and the first ones that are too large.

    Source: RD++, official code.
    """
    scale = min(image.shape[-2:]) / 256
    low = max(1, round(patch[0] * scale))
    high = max(low + 1, round(patch[1] * scale))
    rows, columns = (_part(side, low, high, generator) for side in image.shape[-2:])
    h, w = rows.stop - rows.start, columns.stop - columns.start
    pattern = _simplex(h, w, scale, generator) if noise == "simplex" else _bands(h, w, scale, generator)
    noisy = image.clone()
    noisy[:, rows, columns] += strength * pattern.to(image.dtype)
    return noisy


def simplex_octaves(
    shape: tuple[int, int, int], seed: int, *, octaves: int = 6, persistence: float = 0.6, scale: float = 1.0
) -> NDArray[np.float64]:
    """Simplex noise [D, H, W]: octaves of half the wavelength and `persistence` times the amplitude of the one before.

    Args:
        shape: Depth, height and width; the coordinates of all three start at 0.
        seed: Decides the pattern.
        octaves: Number of octaves; the first one's wavelength is 32 pixels.
        persistence: Ratio of neighbouring amplitudes.
        scale: Side of the image in units of 256 pixels.

    Source: RD++, official code, of which PyPI's `opensimplex` gives the same values.
    """
    simplex, total = OpenSimplex(seed), np.zeros(shape)
    for octave in range(octaves):
        wavelength = _COARSEST / 2**octave
        z, y, x = (np.arange(n) / wavelength for n in shape)
        total += persistence**octave * simplex.noise3array(x / scale, y / scale, z)
    return total


def _part(side: int, low: int, high: int, generator: torch.Generator) -> slice:
    """A stretch of at least `low` and less than `high` pixels that leaves out the first and the last of the side."""
    length = min(_below(high, generator, low), side - 2)
    start = _below(side - length, generator, 1)
    return slice(start, start + length)


def _below(high: int, generator: torch.Generator, low: int = 0) -> int:
    return int(torch.randint(low, high, (), generator=generator))


def _simplex(h: int, w: int, scale: float, generator: torch.Generator) -> Tensor:
    """Pattern [3, h, w], the channels being neighbouring planes of one 3-D field."""
    return torch.from_numpy(simplex_octaves((3, h, w), _below(2**62, generator), scale=scale))


def _bands(h: int, w: int, scale: float, generator: torch.Generator) -> Tensor:
    """Pattern [1, h, w] made of a random spectrum that falls like the octaves."""
    white = torch.fft.rfft2(torch.randn(1, h, w, generator=generator))
    frequency = torch.hypot(torch.fft.fftfreq(h)[:, None], torch.fft.rfftfreq(w)) * scale
    amplitude = frequency.clamp_min(1 / _COARSEST) ** -_SLOPE
    power = torch.fft.irfft2(amplitude**2, s=(h, w))[0, 0]  # the variance that white noise gets by this filter
    return _DEVIATION / power.sqrt() * torch.fft.irfft2(white * amplitude, s=(h, w))
