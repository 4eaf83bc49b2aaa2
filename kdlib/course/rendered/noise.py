"""Random fields for natural variation: band-limited noise and soft blobs.

Sizes are in samples, frequencies in cycles per picture width. Every field comes from the generator that is handed in,
so a picture depends on its own generator only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import fft

Array = NDArray[Any]


def band(
    rng: np.random.Generator,
    size: int,
    low: float,
    high: float,
    *,
    slope: float = 0.0,
    stretch: float = 1.0,
    angle: float = 0.0,
) -> Array:
    """Gaussian noise whose energy lies between two frequencies, shaped directly in the Fourier domain.

    Args:
        rng: Source of randomness.
        size: Side of the field in samples.
        low: Lowest frequency, cycles per width.
        high: Highest frequency, cycles per width.
        slope: Amplitude falls as frequency ** -slope (0 is white, 1 to 2 looks like clouds or stone).
        stretch: Above 1 the grain gets that much longer along the direction `angle`.
        angle: Direction of the grain in radians from the horizontal.

    Returns:
        Field [size, size], float32, mean 0, standard deviation 1.
    """
    fy = fft.fftfreq(size, 1 / size)[:, None].astype(np.float32)
    fx = fft.rfftfreq(size, 1 / size)[None, :].astype(np.float32)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along, across = (fx * cos + fy * sin) * np.float32(stretch), fy * cos - fx * sin
    radius = np.sqrt(along**2 + across**2)
    window = np.exp(-((radius / high) ** 4)) * (1 - np.exp(-((radius / low) ** 4)))
    amplitude = window * np.maximum(radius, low) ** np.float32(-slope)
    shape = (size, size // 2 + 1)
    white = rng.standard_normal(shape, np.float32) + 1j * rng.standard_normal(shape, np.float32)
    field: Array = fft.irfft2(white * amplitude.astype(np.float32), s=(size, size))
    return (field - field.mean()) / (field.std() + 1e-9)


def smooth(rng: np.random.Generator, size: int, cells: int) -> Array:
    """Slowly varying field [size, size] in about -1..1 from a coarse random grid of `cells` x `cells`."""
    grid = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    image = Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float32)


def jitter(rng: np.random.Generator, colour: Array, amount: float) -> Array:
    """Colour [3] varied in brightness and, half as much, in each channel."""
    factor = 1 + amount * rng.uniform(-1, 1) + amount / 2 * rng.uniform(-1, 1, 3)
    return colour * factor.astype(np.float32)
