"""A printed two-colour capsule on paper: glossy gelatine, a printed body and a cap that overlaps it."""

from __future__ import annotations

import numpy as np

from kdlib.course.rendered.noise import Array, band, jitter, smooth
from kdlib.course.rendered.optics import CANVAS, linear, mix, pose
from kdlib.course.rendered.scene import Flaw
from kdlib.course.rendered.shapes import cover, polyline, text, wander

DEFECTS = ("crack", "dent", "misprint", "scratch")
LENGTH = 204.0
RADIUS = 37.0
SEAM = 8.0


def _on_shell(flaw: Flaw) -> tuple[float, float]:
    """A place on the visible side of the capsule."""
    return float(flaw.rng.uniform(-72, 72)), float(flaw.rng.uniform(-18, 18))


def _line(flaw: Flaw, u: Array, v: Array, length: float, width: float, bend: float) -> Array:
    """Coverage of a wandering line on the shell."""
    points = wander(flaw.rng, _on_shell(flaw), flaw.rng.uniform(0, 2 * np.pi), length, bend)
    distance, position = polyline(u, v, points)
    return cover(distance - width * (1 - 0.7 * position), 0.6)


def _dent(flaw: Flaw, u: Array, v: Array) -> tuple[Array, Array]:
    """Change of the surface slope (along, across) [h, w] by a pressed spot."""
    x, y = _on_shell(flaw)
    radius = flaw.between(6, 12)
    du, dv = (u - x) / radius, (v - y) / radius
    bowl = flaw.between(0.30, 0.9) * np.exp(-(du**2 + dv**2))
    return bowl * du * 2, bowl * dv * 2


def _print(u: Array, roll: Array, wear: Array, flaw: Flaw | None) -> Array:
    """Ink coverage [h, w]: a name on the body and rings on the cap; `roll` is the length around the capsule."""
    x, y, turn, size, words, ghost = 0.0, 0.0, 0.0, 21.0, "KD 250", 0.0
    if flaw and flaw.kind == "misprint":
        way, sign = int(flaw.rng.integers(4)), float(flaw.rng.choice([-1, 1]))
        if way == 0:
            x, y = sign * flaw.between(5, 12), sign * flaw.between(3, 9)
        elif way == 1:
            turn = sign * flaw.between(0.10, 0.32)
        elif way == 2:
            words = "KD 520" if flaw.severity < 0.6 else "KD 25"
        else:
            ghost = flaw.between(2.0, 4.5)
    cu, cv = u - 43 - x, roll - y
    pu, pv = cu * np.cos(turn) + cv * np.sin(turn), cv * np.cos(turn) - cu * np.sin(turn)
    ink = text(pu, pv, words, size * 0.9)
    if ghost:
        ink = np.maximum(0.7 * ink, 0.55 * text(pu - ghost, pv - 0.6 * ghost, words, size * 0.9))
    return ink * np.clip(0.92 + 0.16 * wear, 0, 1)


def _paper(rng: np.random.Generator, distance: Array) -> Array:
    """Sheet of paper with fibres; `distance` is the signed distance to the shadow's outline."""
    fibre = band(rng, CANVAS, 20, 200, slope=0.4) + 0.6 * band(rng, CANVAS, 3, 20, slope=1)
    paper = jitter(rng, linear(186, 182, 172), 0.07) * (1 + 0.035 * fibre + 0.03 * smooth(rng, CANVAS, 5))[..., None]
    return paper * (1 - 0.55 * cover(distance, 13) - 0.25 * cover(distance + 4, 5))[..., None]


def paint(rng: np.random.Generator, flaw: Flaw | None) -> Array:
    """Linear light [CANVAS, CANVAS, 3] of the capsule."""
    u, v = pose(rng, shift=7, turn=4.0)
    half = LENGTH / 2 * (1 + rng.normal(0, 0.008)) - RADIUS
    seam = SEAM + rng.normal(0, 1.5)
    on_cap = cover(u + seam * 1.0, 0.6)
    radius = RADIUS - 1.3 * (1 - on_cap)
    end = np.sign(u) * np.maximum(np.abs(u) - half, 0)
    away = np.hypot(end, v)
    outline = away - radius
    nx, ny = end / radius, v / radius
    wave = band(rng, CANVAS, 2, 14, slope=1.2)
    squeeze = _dent(flaw, u, v) if flaw and flaw.kind == "dent" else (np.float32(0), np.float32(0))
    lip = np.exp(-(((u + seam) / 1.4) ** 2))
    nx, ny = nx + 0.02 * wave + squeeze[0] + 0.35 * lip, ny + 0.015 * wave + squeeze[1]
    nz = np.sqrt(np.clip(1 - nx * nx - ny * ny, 0.02, 1))
    tilt = rng.normal(0, 0.05)
    facing = np.clip(0.80 * nz - (0.45 + tilt) * ny - 0.12 * nx, 0, 1)
    cap, body = jitter(rng, linear(168, 62, 42), 0.06), jitter(rng, linear(226, 212, 178), 0.05)
    cloud = band(rng, CANVAS, 3, 50, slope=1.2)
    colour = mix(np.broadcast_to(body, (*u.shape, 3)) * (1 + 0.03 * cloud)[..., None], cap, on_cap)
    roll = np.arcsin(np.clip(v / radius, -0.99, 0.99)) * radius - rng.normal(0, 2.0)
    ink = _print(u + rng.normal(0, 1.5), roll, band(rng, CANVAS, 10, 150, slope=0.3), flaw)
    colour = mix(colour, linear(44, 46, 58), 0.88 * ink)
    ring = cover(np.abs(u + 62 + rng.normal(0, 1.2)) - 2.2) + cover(np.abs(u + 54) - 0.9)
    colour = mix(colour, linear(232, 208, 176), 0.75 * np.clip(ring, 0, 1))
    streak = cover(np.abs(ny + 0.47 + tilt) - 0.10, 0.06) * cover(np.abs(u + 0.15 * wave) - half - 12, 9)
    shine = 0.50 * streak + 0.10 * cover(np.abs(ny - 0.72) - 0.09, 0.10) + 0.05 * np.clip(1 - nz, 0, 1)
    if flaw and flaw.kind == "crack":
        gap = _line(flaw, u, v, flaw.between(24, 56), flaw.between(0.9, 1.9), 0.35)
        colour, shine = mix(colour, colour * 0.22, gap * flaw.between(0.6, 1)), shine * (1 - 0.8 * gap)
    elif flaw and flaw.kind == "scratch":
        rub = _line(flaw, u, v, flaw.between(40, 75), flaw.between(1.3, 1.9), 0.05)
        colour = mix(colour, colour * 0.4 + 0.40, rub * flaw.between(0.75, 1))
        shine = shine * (1 - 0.8 * rub)
    capsule = colour * (0.30 + 0.78 * facing)[..., None] + shine[..., None]
    capsule = capsule * (1 - 0.28 * np.exp(-(((u + seam - 1.6) / 1.3) ** 2)))[..., None]
    su, sv = u - rng.normal(6, 1), v - rng.normal(9, 1)
    shadow = np.hypot(np.maximum(np.abs(su) - half, 0), sv) - RADIUS
    return mix(_paper(rng, shadow), capsule, cover(outline, 0.8))
