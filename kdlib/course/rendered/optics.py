"""Light and camera: from surfaces to the photograph of a careless inspector.

Painting happens in linear light at twice the size of the finished picture; the camera averages, so edges are clean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kdlib.course.rendered.noise import Array, smooth

SIZE = 256
OVERSAMPLING = 2
CANVAS = SIZE * OVERSAMPLING


def pose(
    rng: np.random.Generator, shift: float = 4.0, turn: float = 2.0, zoom: float = 0.02, angle: float = 0.0
) -> tuple[Array, Array]:
    """Coordinates [CANVAS, CANVAS] of the object under the camera: origin in the middle, unit one finished pixel.

    Args:
        rng: Source of randomness.
        shift: Largest displacement in pixels.
        turn: Standard deviation of the rotation in degrees.
        zoom: Standard deviation of the relative size.
        angle: Rotation in radians that is added.
    """
    axis = (np.arange(CANVAS, dtype=np.float32) + 0.5) / OVERSAMPLING - SIZE / 2
    dx, dy = rng.uniform(-shift, shift, 2)
    x, y = np.meshgrid(axis - np.float32(dx), axis - np.float32(dy))
    theta = angle + np.deg2rad(rng.normal(0, turn))
    scale = np.exp(rng.normal(0, zoom))
    cos, sin = np.float32(np.cos(theta) / scale), np.float32(np.sin(theta) / scale)
    return cos * x + sin * y, cos * y - sin * x


def linear(red: int, green: int, blue: int) -> Array:
    """Linear light [3] of an 8-bit display colour."""
    return np.asarray([(channel / 255) ** 2.2 for channel in (red, green, blue)], np.float32)


def mix(base: Array, top: Array, share: Array) -> Array:
    """`top` (colour [3] or picture [h, w, 3]) laid over picture `base` with coverage `share` [h, w]."""
    return base + (top - base) * share[..., None]


def slopes(height: Array) -> tuple[Array, Array]:
    """Slope of a height map (finished pixels) to the right and downwards."""
    gx, gy = np.zeros_like(height), np.zeros_like(height)
    gx[:, 1:-1] = (height[:, 2:] - height[:, :-2]) * (OVERSAMPLING / 2)
    gy[1:-1] = (height[2:] - height[:-2]) * (OVERSAMPLING / 2)
    return gx, gy


def lamp(rng: np.random.Generator, towards: float = -2.2, spread: float = 0.25, elevation: float = 0.9) -> Array:
    """Unit vector [3] to the lamp; by default it hangs to the upper left, moved a little from picture to picture."""
    phi, theta = towards + rng.normal(0, spread), elevation + rng.normal(0, 0.08)
    return np.asarray([np.cos(phi) * np.cos(theta), np.sin(phi) * np.cos(theta), np.sin(theta)], np.float32)


def shade(
    height: Array, albedo: Array, light: Array, *, gloss: float = 0.0, sharpness: float = 20.0, ambient: float = 0.35
) -> Array:
    """Light that a relief sends to a camera straight above: diffuse, ambient and a highlight (Blinn-Phong).

    Args:
        height: Relief [h, w] in finished pixels.
        albedo: Colour [h, w, 3] or [3].
        light: Unit vector [3] to the lamp.
        gloss: Strength of the highlight.
        sharpness: Exponent of the highlight, larger is smaller and harder.
        ambient: Share of light that comes from everywhere.
    """
    gx, gy = slopes(height)
    norm = 1 / np.sqrt(1 + gx * gx + gy * gy)
    diffuse = np.maximum((light[2] - gx * light[0] - gy * light[1]) * norm, 0) / light[2]
    result = albedo * (ambient + (1 - ambient) * diffuse)[..., None]
    if gloss:
        half = light + np.asarray([0, 0, 1], np.float32)
        half /= np.linalg.norm(half)
        facing = np.maximum((half[2] - gx * half[0] - gy * half[1]) * norm, 1e-4)
        result = result + (gloss * facing ** np.float32(sharpness))[..., None]
    return result


@dataclass(frozen=True)
class Camera:
    """One careless shot: its light, colour, sharpness and noise are fixed when it is made.

    Attributes:
        light: Falloff of the light over the picture and exposure, per colour [SIZE, SIZE, 3].
        blur: Standard deviation of the lens blur in pixels.
        grain: Noise [SIZE, SIZE, 3] in units of its own standard deviation.
        gain: Standard deviation of the noise at full light.
    """

    light: Array
    blur: float
    grain: Array
    gain: float

    @staticmethod
    def careless(rng: np.random.Generator) -> Camera:
        """Draws exposure, white balance, uneven light, vignette, focus and sensor noise."""
        axis = np.linspace(-1, 1, SIZE, dtype=np.float32)
        x, y = np.meshgrid(axis, axis)
        phi, tilt = rng.uniform(0, 2 * np.pi), abs(rng.normal(0, 0.13))
        falloff = 1 + tilt * (x * np.cos(phi) + y * np.sin(phi)) + 0.05 * smooth(rng, SIZE, 4)
        falloff -= rng.uniform(0.05, 0.16) * (x * x + y * y)
        white = 1 + np.array([1, 0, -1]) * rng.normal(0, 0.025) + rng.normal(0, 0.008, 3)
        exposure = np.exp(rng.normal(0, 0.06))
        grain = rng.standard_normal((SIZE, SIZE, 3), np.float32)
        grain = 0.7 * grain + 0.6 * grain.mean(-1, keepdims=True)
        light = (falloff[..., None] * (white * exposure)).astype(np.float32)
        return Camera(light, rng.uniform(0.5, 0.75), grain, rng.uniform(0.010, 0.017))

    def develop(self, radiance: Array) -> Array:
        """Noise-free picture [SIZE, SIZE, 3] in 0..1 (display values) from linear light [CANVAS, CANVAS, 3]."""
        k = OVERSAMPLING
        small = sum(radiance[i::k, j::k] for i in range(k) for j in range(k)) / k**2
        small = ndimage.gaussian_filter(small, (self.blur, self.blur, 0), truncate=3) * self.light
        rolled = np.where(small > 0.7, 1 - 0.3 * np.exp(-(small - 0.7) / 0.3), small)
        return np.clip(rolled, 0, 1) ** np.float32(1 / 2.2)

    def expose(self, picture: Array) -> Array:
        """Adds sensor noise, stronger in the shadows as display values show it, and rounds to uint8."""
        noisy = picture + self.grain * (self.gain * (1.15 - 0.6 * picture))
        return np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
