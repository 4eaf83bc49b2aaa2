"""Glazed tiles in grout: thick glossy glaze that pools, mirrors a window and varies from tile to tile."""

from __future__ import annotations

import numpy as np

from kdlib.course.rendered.noise import Array, band, jitter
from kdlib.course.rendered.optics import CANVAS, lamp, linear, mix, pose, shade, slopes
from kdlib.course.rendered.scene import Flaw
from kdlib.course.rendered.shapes import blob, box, cover, polyline, wander

DEFECTS = ("chip", "crack", "missing_grout", "pinholes")
PITCH = 62.0
GAP = 4.6


def _window(x: Array, y: Array) -> Array:
    """Brightness of a mirrored window with one bar, for mirror coordinates in tile widths."""
    pane = cover(box(x + 0.17, y + 0.19, 0.24, 0.17, 0.05), 0.06)
    return pane * (1 - 0.45 * cover(np.abs(x + 0.17) - 0.012, 0.03)) + 0.16 * cover(x + 0.6 * y + 0.1, 0.6)


def _on_tile(flaw: Flaw, edge: bool) -> tuple[float, float]:
    """A place on a tile near the middle of the picture: on its rim or well inside."""
    tile = PITCH * (flaw.rng.integers(-1, 2, 2) + 0.0)
    inside = flaw.rng.uniform(-0.33, 0.33, 2) * PITCH
    if edge:
        inside[flaw.rng.integers(2)] = flaw.rng.choice([-1, 1]) * (PITCH - GAP) / 2
        inside *= flaw.rng.uniform(0.9, 1.4, 2).clip(None, 1.0)
    x, y = tile + inside
    return float(x), float(y)


def _crack(flaw: Flaw, u: Array, v: Array) -> Array:
    """Coverage of a hairline that wanders through a tile, with one branch."""
    start, angle = _on_tile(flaw, edge=True), flaw.rng.uniform(0, 2 * np.pi)
    points = wander(flaw.rng, start, angle, flaw.between(30, 66), 0.28, 9)
    branch = wander(flaw.rng, tuple(points[4]), angle + flaw.rng.choice([-0.8, 0.8]), flaw.between(6, 24), 0.25, 4)
    main, position = polyline(u, v, points)
    width = flaw.between(0.7, 1.3)
    return np.maximum(cover(main - width * (1 - 0.6 * position)), cover(polyline(u, v, branch)[0] - 0.6 * width))


def _pinholes(flaw: Flaw, u: Array, v: Array) -> Array:
    """Coverage of a few small craters in the glaze."""
    x, y = _on_tile(flaw, edge=False)
    result = np.zeros(u.shape, np.float32)
    for _ in range(1 + int(flaw.between(2, 7))):
        dx, dy = flaw.rng.normal(0, 6, 2)
        radius = flaw.rng.uniform(1.4, flaw.between(2.2, 3.4))
        result = np.maximum(result, cover(np.hypot(u - x - dx, v - y - dy) - radius))
    return result


def _bare_joint(flaw: Flaw, u: Array, v: Array) -> Array:
    """Coverage of a stretch of a joint from which the grout has fallen."""
    column, row = PITCH * (flaw.rng.integers(-1, 1) + 0.5), PITCH * flaw.rng.integers(-1, 2)
    along, long = row + flaw.rng.uniform(-20, 20), flaw.between(16, 48)
    if flaw.rng.random() < 0.5:
        return cover(box(u - column, v - along, GAP + 3, long, 2.0), 2.5)
    return cover(box(u - along, v - column, long, GAP + 3, 2.0), 2.5)


def paint(rng: np.random.Generator, flaw: Flaw | None) -> Array:
    """Linear light [CANVAS, CANVAS, 3] of a tiled wall."""
    u, v = pose(rng, shift=10, turn=1.5)
    column, row = np.round(u / PITCH), np.round(v / PITCH)
    i, j = column.astype(np.intp), row.astype(np.intp)
    fit = rng.normal(0, 0.4, (2, 9, 9)).astype(np.float32)
    a, b = u - column * PITCH - fit[0][j, i], v - row * PITCH - fit[1][j, i]
    tone = (1 + rng.normal(0, 0.07, (9, 9, 1)) + rng.normal(0, 0.03, (9, 9, 3))).astype(np.float32)
    tilt = rng.normal(0, 0.03, (2, 9, 9)).astype(np.float32)
    mottle, sand = band(rng, CANVAS, 3, 60, slope=1.2), band(rng, CANVAS, 20, 220)
    wave = band(rng, CANVAS, 3, 12, slope=1)
    glaze, grout = jitter(rng, linear(46, 116, 122), 0.06), jitter(rng, linear(176, 170, 160), 0.07)
    light, glass = lamp(rng, elevation=0.8), rng.uniform(-0.08, 0.08, 2)
    rim = box(a, b, PITCH - GAP, PITCH - GAP, 3.0) + 0.25 * wave
    body = cover(rim, 0.9)
    chip = crack = holes = bare = None
    if flaw and flaw.kind == "chip":
        ragged = blob(flaw.rng, u, v, _on_tile(flaw, edge=True), flaw.between(3, 10.5), 0.22)
        chip = cover(ragged + 0.4 * sand) * body
    elif flaw and flaw.kind == "crack":
        crack = _crack(flaw, u, v) * cover(rim + 1)
    elif flaw and flaw.kind == "pinholes":
        holes = _pinholes(flaw, u, v) * body
    elif flaw and flaw.kind == "missing_grout":
        bare = _bare_joint(flaw, u, v) * (1 - body)
    pillow = 3.2 * np.clip(-rim / 5, 0, 1) ** 0.6
    relief = pillow + 0.10 * wave
    for hollow, depth in ((chip, 1.8), (holes, 0.8), (crack, 0.3)):
        if hollow is not None:
            relief = relief - depth * hollow * (1 + 0.15 * sand)
    gx, gy = slopes(relief)
    pooled = 1 + 0.14 * mottle - 0.30 * np.exp(np.minimum(rim, 0) / 2.5) + 0.25 * np.exp(-((rim + 1.6) ** 2) / 1.5)
    colour = glaze * tone[j, i] * pooled[..., None]
    mirror = _window(a / PITCH - glass[0] + tilt[0][j, i] + 0.30 * gx, b / PITCH - glass[1] + tilt[1][j, i] + 0.30 * gy)
    joint = grout * (1 + 0.10 * sand + 0.08 * mottle - 0.35 * np.clip(1.5 - rim, 0, 1))[..., None]
    if bare is not None and flaw:
        joint = mix(joint, joint * 0.10, bare * flaw.between(0.75, 1))
    albedo = mix(joint, colour, body)
    biscuit = linear(196, 158, 124) * (1 + 0.12 * sand)[..., None]
    shine = body.copy()
    for bared, ground in ((chip, biscuit), (holes, biscuit * 0.18), (crack, colour * 0.12)):
        if bared is not None and flaw:
            albedo, shine = mix(albedo, ground, bared * flaw.between(0.75, 1)), shine * (1 - 0.9 * bared)
    matt = shade(relief + (1 - body) * (0.25 * sand), albedo, light, ambient=0.5)
    return matt + (shine * (0.26 * mirror + 0.02))[..., None] * np.asarray([0.96, 1.0, 1.05], np.float32)
