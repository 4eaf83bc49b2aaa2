"""Signed distances, soft edges and text: the drawing tools of the workshop.

All lengths are in pixels of the finished picture. A signed distance is negative inside the shape, so one formula gives
an anti-aliased edge (`cover`), a soft shadow (`cover` with a wide edge) and a bevel.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from kdlib.course.rendered.noise import Array


def cover(distance: Array, edge: float = 0.7) -> Array:
    """Share of each sample that is inside: 1 inside, 0 outside, a smooth step of width 2 * `edge` between."""
    t = np.clip(0.5 - distance / (2 * edge), 0, 1)
    return t * t * (3 - 2 * t)


def box(u: Array, v: Array, width: float, height: float, corner: float = 0.0) -> Array:
    """Signed distance to a centred box with rounded corners."""
    du, dv = np.abs(u) - (width / 2 - corner), np.abs(v) - (height / 2 - corner)
    return np.hypot(np.maximum(du, 0), np.maximum(dv, 0)) + np.minimum(np.maximum(du, dv), 0) - corner


def hexagon(u: Array, v: Array, flat: float) -> Array:
    """Signed distance (exact along the sides) to a hexagon with half width `flat` across its flats."""
    sides = [np.abs(u * np.cos(a) + v * np.sin(a)) for a in (0, np.pi / 3, 2 * np.pi / 3)]
    return np.maximum(np.maximum(sides[0], sides[1]), sides[2]) - flat


def polyline(u: Array, v: Array, points: Array) -> tuple[Array, Array]:
    """Distance to a line through `points` [n, 2], and the position along it in 0..1, each shaped like `u`."""
    distance = np.full(u.shape, 1e6, np.float32)
    position = np.zeros(u.shape, np.float32)
    pieces = len(points) - 1
    for k, ((ax, ay), (bx, by)) in enumerate(pairwise(points)):
        dx, dy = bx - ax, by - ay
        t = np.clip(((u - ax) * dx + (v - ay) * dy) / (dx * dx + dy * dy + 1e-9), 0, 1)
        d = np.hypot(u - ax - t * dx, v - ay - t * dy)
        nearer = d < distance
        distance = np.where(nearer, d, distance)
        position = np.where(nearer, (k + t) / pieces, position)
    return distance, position


def wander(
    rng: np.random.Generator, start: tuple[float, float], angle: float, length: float, bend: float, steps: int = 8
) -> Array:
    """Points [steps + 1, 2] of a line from `start` towards `angle` that changes direction by about `bend` per step."""
    turns = angle + np.cumsum(rng.normal(0, bend, steps))
    moves = np.stack([np.cos(turns), np.sin(turns)], 1) * (length / steps)
    return np.concatenate([[start], np.asarray(start) + np.cumsum(moves, 0)])


def blob(
    rng: np.random.Generator, u: Array, v: Array, centre: tuple[float, float], radius: float, rough: float
) -> Array:
    """Signed distance to an irregular round patch; `rough` is the relative depth of its bays."""
    du, dv = u - centre[0], v - centre[1]
    phi = np.arctan2(dv, du)
    waves = sum(rng.normal() / k * np.cos(k * phi + rng.uniform(0, 6.3)) for k in range(2, 7))
    return np.hypot(du, dv) - radius * (1 + rough * waves)


@lru_cache(maxsize=64)
def _letters(text: str, size: int) -> Array:
    """Coverage [h, w] of a line of text, `size` pixels high."""
    font = ImageFont.load_default(size=size)
    left, top, right, bottom = font.getbbox(text)
    image = Image.new("L", (int(right - left) + 4, int(bottom - top) + 4))
    ImageDraw.Draw(image).text((2 - left, 2 - top), text, fill=255, font=font)
    return np.asarray(image, np.float32) / 255


def text(u: Array, v: Array, words: str, height: float) -> Array:
    """Coverage of centred text whose capital letters are `height` pixels high, at coordinates `u`, `v`."""
    letters = _letters(words, 48)
    scale = (letters.shape[0] - 4) / height
    rows = v * scale + letters.shape[0] / 2
    columns = u * scale + letters.shape[1] / 2
    return ndimage.map_coordinates(letters, [rows, columns], order=1, mode="constant", prefilter=False)
