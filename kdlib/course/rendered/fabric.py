"""Woven fabric: a 2/2 twill of a dark warp and a light weft, every thread of its own thickness and tone."""

from __future__ import annotations

import numpy as np

from kdlib.course.rendered.noise import Array, band, jitter
from kdlib.course.rendered.optics import CANVAS, lamp, linear, mix, pose, shade
from kdlib.course.rendered.scene import Flaw
from kdlib.course.rendered.shapes import blob, cover

DEFECTS = ("broken_thread", "hole", "mispick", "stain")
PITCH = 8.5
THREADS = 96
GONE = -9.0


def _thread(across: Array, along: Array, number: Array, thick: Array, phase: Array) -> Array:
    """Height of one family of threads: a round yarn that dives under the others every fourth crossing."""
    inside = np.clip(1 - (across / (0.5 * thick[number.astype(np.intp)])) ** 2, 0, 1)
    ply = 0.05 * np.sin(9.0 * along + 7.0 * across + 1.7 * number)
    dive = np.cos(np.float32(np.pi / 2) * (along + phase))
    return np.where(inside > 0, 0.75 * np.sqrt(inside) + 0.42 * dive + ply, np.float32(GONE))


def _weave(u: Array, v: Array, rng: np.random.Generator, flaw: Flaw | None) -> tuple[Array, Array, Array, Array, Array]:
    """Heights of warp and weft, their thread numbers' tones, all [h, w]; `flaw` may lift or break weft threads."""
    thick = rng.normal(0.98, 0.06, (2, THREADS)).clip(0.8, 1.15).astype(np.float32)
    tone = rng.normal(1, 0.07, (2, THREADS)).astype(np.float32)
    a, b = u / PITCH + THREADS / 2, v / PITCH + THREADS / 2
    i, j = np.floor(a), np.floor(b)
    shift = np.zeros(u.shape, np.float32)
    broken = np.zeros(u.shape, bool)
    if flaw and flaw.kind in ("mispick", "broken_thread"):
        row, middle = flaw.rng.integers(-11, 11) + THREADS // 2, flaw.rng.uniform(-70, 70)
        if flaw.kind == "mispick":
            rows = 1 + int(flaw.between(0, 2.9))
            reach = np.abs(u - middle) < flaw.between(9, 50)
            shift = np.where(reach & (j >= row) & (j < row + rows), np.float32(1 if flaw.severity < 0.5 else 2), 0)
        else:
            ragged = flaw.rng.normal(0, 2.5, 7)[np.floor((b - np.floor(b)) * 7).astype(np.intp)]
            broken = (np.abs(u - middle + ragged) < flaw.between(3, 26)) & (j == row)
    warp = _thread(a - i - 0.5, b, i, thick[0], i - 1)
    weft = _thread(b - j - 0.5, a, j, thick[1], j - 3 + shift)
    tones = tone[0][i.astype(np.intp)], tone[1][j.astype(np.intp)]
    return warp, np.where(broken, np.float32(GONE), weft), *tones, b - j


def _tear(flaw: Flaw, u: Array, v: Array, ends: Array) -> Array:
    """Coverage of a hole; the torn threads reach into it at different lengths."""
    centre = (flaw.rng.uniform(-90, 90), flaw.rng.uniform(-90, 90))
    distance = blob(flaw.rng, u, v, centre, flaw.between(3.5, 15), 0.18)
    return cover(distance + 2.5 * ends)


def paint(rng: np.random.Generator, flaw: Flaw | None) -> Array:
    """Linear light [CANVAS, CANVAS, 3] of a piece of fabric."""
    u, v = pose(rng, shift=6, turn=2.0)
    u = u + 1.3 * band(rng, CANVAS, 1, 7, slope=0.8)
    v = v + 1.3 * band(rng, CANVAS, 1, 7, slope=0.8)
    fuzz = band(rng, CANVAS, 30, 200)
    warp, weft, warp_tone, weft_tone, ends = _weave(u, v, rng, flaw)
    blue, cream = jitter(rng, linear(52, 84, 128), 0.08), jitter(rng, linear(205, 196, 178), 0.05)
    light = lamp(rng)
    drift = 1 + 0.06 * band(rng, CANVAS, 1, 5, slope=1)
    height = np.maximum(np.maximum(warp, weft), -0.75)
    if flaw and flaw.kind == "hole":
        torn = _tear(flaw, u, v, np.abs(ends - 0.5) + 0.4 * fuzz)
        height = height - 2.5 * torn
    yarn = np.where((weft > warp)[..., None], cream * weft_tone[..., None], blue * warp_tone[..., None])
    depth = np.clip((height + 0.9) / 1.7, 0.04, 1.15) * drift * (1 + 0.10 * fuzz)
    albedo = yarn * depth[..., None]
    if flaw and flaw.kind == "stain":
        patch = blob(flaw.rng, u, v, tuple(flaw.rng.uniform(-85, 85, 2)), flaw.between(13, 30), 0.15)
        wet = cover(patch + 2 * fuzz, 6) * flaw.between(0.55, 0.9)
        albedo = mix(albedo, albedo * linear(150, 118, 82), wet)
    return shade(height * 1.6, albedo, light, ambient=0.45)
