"""A zinc-plated hex nut on a rubber mat, lying in any rotation."""

from __future__ import annotations

import numpy as np

from kdlib.course.rendered.noise import Array, band, jitter, smooth
from kdlib.course.rendered.optics import CANVAS, linear, mix, pose, slopes
from kdlib.course.rendered.scene import Flaw
from kdlib.course.rendered.shapes import blob, cover, hexagon, polyline, wander

DEFECTS = ("chipped_corner", "damaged_thread", "rust", "scratch")
FLAT = 72.0
BORE = 40.0
THREAD = 4.5


def _chip(flaw: Flaw, u: Array, v: Array) -> Array:
    """Signed distance to the piece that is broken off a corner."""
    corner = np.pi / 6 + np.pi / 3 * flaw.rng.integers(6)
    reach = FLAT / np.cos(np.pi / 6) + 3
    return blob(flaw.rng, u, v, (reach * np.cos(corner), reach * np.sin(corner)), flaw.between(9.5, 23), 0.14)


def _worn_thread(flaw: Flaw, phi: Array, rough: Array) -> Array:
    """Share [h, w] of damage along the wall of the bore."""
    middle, half = flaw.rng.uniform(-np.pi, np.pi), flaw.between(0.26, 0.8)
    away = np.abs((phi - middle + np.pi) % (2 * np.pi) - np.pi)
    return cover((away - half) * 20 + 2 * rough, 3)


def _rust(flaw: Flaw, u: Array, v: Array) -> Array:
    """Coverage of a rusty patch on the face."""
    phi, r = flaw.rng.uniform(-np.pi, np.pi), flaw.rng.uniform(BORE + 8, FLAT - 6)
    patch = blob(flaw.rng, u, v, (r * np.cos(phi), r * np.sin(phi)), flaw.between(4, 16), 0.2)
    return cover(patch / 6 - band(flaw.rng, CANVAS, 8, 70, slope=0.6) + 0.4, 0.5)


def _scratch(flaw: Flaw, u: Array, v: Array) -> Array:
    """Coverage of a scratch over the face."""
    phi, r = flaw.rng.uniform(-np.pi, np.pi), flaw.rng.uniform(BORE + 10, FLAT - 8)
    heading = phi + np.pi / 2 + flaw.rng.normal(0, 0.6)
    start = (r * np.cos(phi), r * np.sin(phi))
    distance, position = polyline(u, v, wander(flaw.rng, start, heading, flaw.between(26, 66), 0.07))
    return cover(distance - flaw.between(0.85, 1.4), 0.5) * np.sin(np.pi * np.clip(position, 0.05, 0.95)) ** 0.5


def _mat(rng: np.random.Generator, shadow: Array) -> Array:
    """The grey-blue rubber mat under the nut, darker where the shadow falls."""
    grain = band(rng, CANVAS, 40, 220)
    dust = cover(3.1 - band(rng, CANVAS, 30, 120), 0.4)
    mat = jitter(rng, linear(92, 104, 116), 0.12) * (1 + 0.10 * grain + 0.06 * smooth(rng, CANVAS, 6))[..., None]
    return mix(mat, linear(170, 172, 170), 0.6 * dust) * (1 - 0.72 * shadow)[..., None]


def _metal(rng: np.random.Generator, r: Array, bearing: Array, relief: Array, lamp: float) -> Array:
    """Zinc: a turned face whose gleam fans out towards the lamp, and slopes that are lit or dark.

    Args:
        rng: Source of randomness.
        r: Distance [h, w] from the axis.
        bearing: Direction [h, w] from the axis, radians in the picture.
        relief: Height map [h, w].
        lamp: Direction of the lamp, radians in the picture.
    """
    rings = np.interp(r, np.arange(0, 190, 0.5), rng.normal(0, 1, 380)).astype(np.float32)
    patina = band(rng, CANVAS, 2, 40, slope=1.0)
    fan = np.abs(np.cos(bearing - lamp + 0.05 * rings)) ** 6
    gx, gy = slopes(relief)
    facing = -(gx * np.float32(np.cos(lamp)) + gy * np.float32(np.sin(lamp)))
    lit = 0.85 * np.clip(facing, -0.5, 1.0) * np.exp(-np.abs(facing) / 1.5)
    room = np.maximum(0.28 + 0.38 * fan * (np.hypot(gx, gy) < 0.25) + lit, 0.06)
    zinc = jitter(rng, linear(196, 198, 196), 0.05)
    return zinc * (1.75 * room * (1 + 0.05 * rings + 0.06 * patina))[..., None]


def _bore(rng: np.random.Generator, phi: Array, wall: Array, lit: Array) -> Array:
    """Turns of the thread on the wall of the bore; `wall` is -1 at its foot and 0 at its top."""
    helix = (wall * 2.6 + phi / (2 * np.pi)) % 1
    turns = (0.25 + 0.75 * np.abs(2 * helix - 1)) * (1 - 0.55 * np.clip(-wall, 0, 1))
    return jitter(rng, linear(150, 150, 148), 0.06) * (turns * lit)[..., None]


def paint(rng: np.random.Generator, flaw: Flaw | None) -> Array:
    """Linear light [CANVAS, CANVAS, 3] of the nut."""
    turning, lamp = rng.uniform(0, 2 * np.pi), rng.normal(-2.2, 0.2)
    u, v = pose(rng, shift=9, turn=0, angle=turning)
    rough = band(rng, CANVAS, 10, 90, slope=0.5)
    flat, bore = FLAT * (1 + rng.normal(0, 0.008)), BORE * (1 + rng.normal(0, 0.012))
    r, phi = np.hypot(u, v), np.arctan2(v, u)
    outline = np.maximum(hexagon(u, v, flat), (r - flat * 1.13) * 0.8) + 0.08 * rough
    if flaw and flaw.kind == "chipped_corner":
        outline = np.maximum(outline, -_chip(flaw, u, v) + 0.8 * rough)
    reach, away = rng.normal(8, 1.5), lamp + np.pi - turning
    su, sv = u - reach * np.cos(away), v - reach * np.sin(away)
    shadow = np.maximum(hexagon(su, sv, flat), (np.hypot(su, sv) - flat * 1.13) * 0.8)
    wall = (r - bore) / THREAD
    relief = -0.55 * np.maximum(r - flat, 0) - 5 * np.exp(np.minimum(outline, 0) / 1.2)
    relief = relief - 0.8 * np.maximum(bore + 3.5 - r, 0) + 0.025 * rough
    bearing = phi + np.float32(turning)
    metal = _metal(rng, r, bearing, relief, lamp)
    inside = _bore(rng, phi, wall, 0.65 - 0.45 * np.cos(bearing - np.float32(lamp)))
    if flaw and flaw.kind == "damaged_thread":
        worn = _worn_thread(flaw, phi, rough)
        torn = jitter(flaw.rng, linear(176, 172, 166), 0.1) * (0.45 + 0.25 * rough)[..., None]
        inside = mix(inside, np.maximum(torn, 0.02), worn * flaw.between(0.7, 1))
        wall = wall + worn * flaw.between(0.1, 0.5) * rough
    elif flaw and flaw.kind == "rust":
        brown = linear(126, 74, 42) * (1 + 0.25 * rough)[..., None]
        metal = mix(metal, brown, _rust(flaw, u, v) * flaw.between(0.5, 0.9))
    elif flaw and flaw.kind == "scratch":
        metal = metal * (1 + flaw.rng.choice([-1, 1]) * flaw.between(0.45, 0.85) * _scratch(flaw, u, v))[..., None]
    mat = _mat(rng, 0.9 * cover(shadow, 9))
    nut = mix(mix(0.3 * mat, inside, cover(bore - THREAD - r, 0.8)), metal, cover(-wall * THREAD, 0.7))
    return mix(mat, nut, cover(outline, 0.8)).astype(np.float32)
