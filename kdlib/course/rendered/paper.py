"""Recycled paper seen closely: a cloudy mass of fibres with harmless flecks of the same colour family.

A material without parts or outlines, unlike the products: its pattern is the same everywhere and nowhere equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kdlib.course.rendered.noise import Array, band, jitter
from kdlib.course.rendered.optics import CANVAS, OVERSAMPLING, SIZE, linear, mix, pose
from kdlib.course.rendered.scene import Flaw
from kdlib.course.rendered.shapes import blob, cover, polyline, wander

DEFECTS = ("bark", "clump", "fibre", "speck")


@dataclass(frozen=True, kw_only=True)
class Stock:
    """What a kind of paper is made of.

    Attributes:
        colour: Mean linear light [3].
        grain: Lowest and highest frequency of the mass, cycles per picture.
        slope: How much the coarse outweighs the fine in it.
        contrast: Standard deviation of the logarithm of its light.
        strands: Share of fibres that lie in three directions.
        flecks: Mean number of harmless flecks.
        size: Their size in pixels.
        tone: What their light is multiplied with [3]; a quarter of them is lighter instead.
    """

    colour: Array
    grain: tuple[float, float]
    slope: float
    contrast: float
    strands: float
    flecks: int
    size: float
    tone: Array


BOARD = Stock(
    colour=linear(168, 168, 160),
    grain=(4, 45),
    slope=0.8,
    contrast=0.19,
    strands=0.15,
    flecks=35,
    size=3.0,
    tone=linear(120, 112, 108),
)
KRAFT = Stock(
    colour=linear(170, 152, 112),
    grain=(5, 60),
    slope=0.6,
    contrast=0.26,
    strands=0.0,
    flecks=40,
    size=2.2,
    tone=linear(120, 105, 90),
)
ROSE = Stock(
    colour=linear(196, 170, 152),
    grain=(4, 50),
    slope=0.7,
    contrast=0.17,
    strands=0.3,
    flecks=50,
    size=2.6,
    tone=linear(140, 118, 112),
)


def _flecks(rng: np.random.Generator, u: Array, v: Array, sheet: Array, stock: Stock) -> Array:
    """The sheet with specks and short fibres of its own kind, each drawn in a window around it."""
    sheet, size = sheet.copy(), stock.size
    for _ in range(rng.poisson(stock.flecks)):
        centre = rng.uniform(-125, 125, 2)
        is_fibre = rng.uniform() < 0.6
        line = wander(rng, tuple(centre), rng.uniform(0, 2 * np.pi), rng.uniform(3, 9) * size, 0.5, 4)
        points = line if is_fibre else np.stack([centre, centre + 1e-3])
        left, top = ((points.min(0) - 5 * size + SIZE / 2) * OVERSAMPLING).astype(int).clip(0, CANVAS)
        right, bottom = ((points.max(0) + 5 * size + SIZE / 2) * OVERSAMPLING).astype(int).clip(0, CANVAS)
        window = slice(top, bottom), slice(left, right)
        width = size * (rng.uniform(0.15, 0.5) if is_fibre else rng.uniform(0.3, 1.1))
        share = cover(polyline(u[window], v[window], points)[0] - width, 0.8 * size) * rng.uniform(0.15, 0.6)
        tone = stock.tone if rng.uniform() < 0.75 else 1 / np.maximum(stock.tone, 0.5)
        sheet[window] = mix(sheet[window], sheet[window] * tone, share)
    return sheet


def _spoiled(flaw: Flaw, u: Array, v: Array, sheet: Array) -> Array:
    """The sheet with one impurity; the faint ones are not much larger than the harmless flecks."""
    rng = flaw.rng
    x, y = rng.uniform(-95, 95, 2)
    if flaw.kind == "speck":
        dark = linear(70, 62, 58) * rng.uniform(0.5, 1.1)
        return mix(sheet, dark, cover(blob(rng, u, v, (x, y), flaw.between(4, 14), 0.2), 2) * flaw.between(0.45, 0.9))
    if flaw.kind == "fibre":
        line = wander(rng, (x, y), rng.uniform(0, 2 * np.pi), flaw.between(20, 80), 0.35)
        share = cover(polyline(u, v, line)[0] - flaw.between(1.2, 3.6), 1.6) * flaw.between(0.45, 0.85)
        return mix(sheet, sheet * linear(110, 96, 90), share)
    if flaw.kind == "clump":
        share = cover(blob(rng, u, v, (x, y), flaw.between(8, 22), 0.25), 4) * flaw.between(0.5, 1)
        return mix(sheet, (0.35 * sheet + 0.65 * sheet.mean((0, 1))) * linear(220, 208, 196), share)
    turn = rng.uniform(0, 2 * np.pi)
    along = ((u - x) * np.cos(turn) + (v - y) * np.sin(turn)) / 3
    across = (v - y) * np.cos(turn) - (u - x) * np.sin(turn)
    brown = linear(92, 64, 48) * (1 + 0.2 * band(rng, CANVAS, 20, 120))[..., None]
    share = cover(blob(rng, along, across, (0, 0), flaw.between(3, 10), 0.15), 1.6) * flaw.between(0.4, 0.9)
    return mix(sheet, brown, share)


def paint(stock: Stock, rng: np.random.Generator, flaw: Flaw | None) -> Array:
    """Linear light [CANVAS, CANVAS, 3] of a sheet of this stock."""
    u, v = pose(rng, shift=0, turn=0, zoom=0)
    mass = band(rng, CANVAS, *stock.grain, slope=stock.slope)
    for angle in rng.uniform(0, np.pi, 3) if stock.strands else ():
        mass = mass + stock.strands * band(rng, CANVAS, 15, 90, slope=0.5, stretch=5, angle=angle)
    warmth = 0.05 * band(rng, CANVAS, 6, 40, slope=0.5)[..., None] * np.array([1, 0, -1], np.float32)
    sheet = jitter(rng, stock.colour, 0.05) * np.exp(stock.contrast * mass)[..., None] * (1 + warmth)
    sheet = _flecks(rng, u, v, sheet, stock)
    return _spoiled(flaw, u, v, sheet) if flaw else sheet
