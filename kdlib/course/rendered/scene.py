"""One picture, its defect-free twin and its mask.

The normal variation, the defect and the camera have generators of their own. So the same picture can be painted with
and without its defect, and the mask is simply where the two differ visibly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from kdlib.course.rendered.noise import Array
from kdlib.course.rendered.optics import Camera

VISIBLE = 6 / 255
SMALLEST = 12


@dataclass(frozen=True)
class Flaw:
    """A defect to paint.

    Attributes:
        kind: Name of the defect type.
        severity: 0 (faint, small) to 1 (obvious).
        rng: Source of randomness for the defect alone.
    """

    kind: str
    severity: float
    rng: np.random.Generator

    def between(self, faint: float, obvious: float) -> float:
        """Value for this severity, on the way from `faint` to `obvious`."""
        return faint + (obvious - faint) * self.severity


Painter = Callable[[np.random.Generator, Flaw | None], Array]


@dataclass(frozen=True)
class Shot:
    """What the camera saw: `image` and `twin` uint8 [H, W, 3], `mask` bool [H, W] (None without a defect)."""

    image: Array
    twin: Array
    mask: Array | None


def changed(before: Array, after: Array) -> Array:
    """Pixels [H, W] that differ visibly between two noise-free pictures; gaps of a few pixels are closed."""
    differs = np.abs(after - before).max(-1) > VISIBLE
    closed = ndimage.binary_closing(np.pad(differs, 4), np.ones((3, 3), bool), iterations=2)[4:-4, 4:-4]
    regions, count = ndimage.label(closed)
    areas = ndimage.sum_labels(closed, regions, np.arange(1, count + 1))
    return np.isin(regions, 1 + np.flatnonzero(areas >= SMALLEST))


def shoot(paint: Painter, key: list[int], kind: str | None = None, severity: float = 0.5) -> Shot:
    """Paints and photographs one picture; the same `key` always gives the same pixels.

    Args:
        paint: The category's painter.
        key: Seed, category, split and index of the picture.
        kind: Defect type, or `None` for a normal picture.
        severity: 0 (faint) to 1 (obvious).

    Raises:
        RuntimeError: If the painter made no visible defect in ten attempts.
    """
    camera = Camera.careless(np.random.default_rng([*key, 1]))
    before = camera.develop(paint(np.random.default_rng([*key, 0]), None))
    twin = camera.expose(before)
    if kind is None:
        return Shot(twin, twin, None)
    for attempt in range(10):
        flaw = Flaw(kind, severity, np.random.default_rng([*key, 2 + attempt]))
        after = camera.develop(paint(np.random.default_rng([*key, 0]), flaw))
        mask = changed(before, after)
        if mask.any():
            return Shot(camera.expose(after), twin, mask)
    raise RuntimeError(f"no visible '{kind}' at severity {severity:.2f} for key {key}; make its faint end stronger")
