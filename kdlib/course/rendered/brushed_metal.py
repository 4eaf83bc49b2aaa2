"""Brushed metal sheet: long grain, a broad band of light across it, the slight waviness of rolled sheet."""

from __future__ import annotations

import numpy as np

from kdlib.course.rendered.noise import Array, band, jitter, smooth
from kdlib.course.rendered.optics import CANVAS, linear, mix, pose, slopes
from kdlib.course.rendered.scene import Flaw
from kdlib.course.rendered.shapes import blob, cover, polyline, wander

DEFECTS = ("dent", "fingerprint", "rust", "scratch")


def _place(flaw: Flaw) -> tuple[float, float]:
    """Somewhere on the sheet, not too near its border."""
    return (float(flaw.rng.uniform(-88, 88)), float(flaw.rng.uniform(-88, 88)))


def _dent(flaw: Flaw, u: Array, v: Array) -> Array:
    """Relief of a shallow, slightly oval dent."""
    (x, y), radius = _place(flaw), flaw.between(7, 15)
    squeeze, turn = flaw.rng.uniform(0.7, 1), flaw.rng.uniform(0, np.pi)
    du = (u - x) * np.cos(turn) + (v - y) * np.sin(turn)
    dv = ((v - y) * np.cos(turn) - (u - x) * np.sin(turn)) / squeeze
    return -radius * flaw.between(0.05, 0.22) * np.exp(-(du**2 + dv**2) / (2 * (radius / 1.6) ** 2))


def _fingerprint(flaw: Flaw, u: Array, v: Array) -> Array:
    """Greasy ridges [h, w] in 0..1 inside an oval."""
    (x, y), turn = _place(flaw), flaw.rng.uniform(-0.6, 0.6)
    du, dv = (u - x) * np.cos(turn) + (v - y) * np.sin(turn), (v - y) * np.cos(turn) - (u - x) * np.sin(turn)
    bend = 3.0 * smooth(flaw.rng, CANVAS, 9)
    ridges = 0.5 + 0.5 * np.sin(2 * np.pi / 4.2 * (np.hypot(du, 0.75 * dv + 9) + bend))
    return ridges * cover(np.hypot(du / 17, dv / 24) - 0.8, 0.3) * (0.75 + 0.25 * smooth(flaw.rng, CANVAS, 24))


def _rust(flaw: Flaw, u: Array, v: Array) -> Array:
    """Coverage of specks of rust that cluster around one place."""
    patch = blob(flaw.rng, u, v, _place(flaw), flaw.between(5, 17), 0.2)
    specks = band(flaw.rng, CANVAS, 8, 60, slope=0.6)
    return cover(patch / 8 - specks + 0.7, 0.5)


def _scratch(flaw: Flaw, u: Array, v: Array) -> tuple[Array, Array]:
    """Bright core and dark lip of a scratch across the grain, each [h, w] in 0..1."""
    angle = flaw.rng.uniform(0.25, np.pi - 0.25)
    points = wander(flaw.rng, _place(flaw), angle, flaw.between(28, 95), 0.05)
    width = flaw.between(0.45, 0.85)
    distance, position = polyline(u, v, points)
    lip, _ = polyline(u - 1.1, v - 0.8, points)
    pressure = np.sin(np.pi * np.clip(position, 0.02, 0.98)) ** 0.5
    return cover(distance - width, 0.5) * pressure, cover(lip - width, 0.6) * pressure


def paint(rng: np.random.Generator, flaw: Flaw | None) -> Array:
    """Linear light [CANVAS, CANVAS, 3] of a sheet of brushed metal."""
    u, v = pose(rng, shift=6, turn=0)
    angle = np.deg2rad(rng.normal(0, 2.5))
    grain = band(rng, CANVAS, 6, 200, slope=0.35, stretch=45, angle=angle)
    grain += 0.6 * band(rng, CANVAS, 40, 256, stretch=14, angle=angle)
    grain += 0.5 * band(rng, CANVAS, 2, 30, slope=0.5, stretch=12, angle=angle)
    relief = 1.0 * band(rng, CANVAS, 0.8, 2.2, slope=1)
    steel, centre, width = jitter(rng, linear(168, 172, 178), 0.06), rng.uniform(-0.5, 0.5), rng.uniform(0.5, 0.8)
    if flaw and flaw.kind == "dent":
        relief = relief + _dent(flaw, u, v)
    gx, gy = slopes(relief)
    where = v / 128 + 3.2 * gy + 1.0 * gx + 0.09 * grain - centre
    gleam = 0.55 + 0.75 * np.exp(-((where / width) ** 2))
    picture = steel * (gleam * (1 + 0.14 * grain))[..., None]
    if flaw and flaw.kind == "scratch":
        core, lip = _scratch(flaw, u, v)
        picture = picture * (1 - flaw.between(0.15, 0.45) * lip)[..., None]
        picture = picture + (flaw.between(0.2, 0.6) * core * (0.6 + 0.4 * np.tanh(grain)))[..., None]
    elif flaw and flaw.kind == "rust":
        brown = linear(122, 78, 48) * (1 + 0.2 * grain)[..., None]
        picture = mix(picture, brown, _rust(flaw, u, v) * flaw.between(0.45, 0.9))
    elif flaw and flaw.kind == "fingerprint":
        picture = picture * (1 - flaw.between(0.16, 0.34) * _fingerprint(flaw, u, v))[..., None]
    return picture
