"""A populated circuit board: fixed layout, parts placed with tolerance, three kinds of solder joints."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy import ndimage

from kdlib.course.rendered import circuit_parts as parts
from kdlib.course.rendered.circuit_parts import Part
from kdlib.course.rendered.noise import Array, band, jitter, smooth
from kdlib.course.rendered.optics import CANVAS, linear, mix, pose
from kdlib.course.rendered.scene import Flaw
from kdlib.course.rendered.shapes import box, cover, polyline, text

DEFECTS = ("missing_part", "solder_bridge", "swapped_parts", "wrong_polarity")
UP = np.pi / 2
LAYOUT = (
    Part("U1", parts.chip, -34, -46, 0.0, "KD358", (37, 23), 3),
    Part("U2", parts.chip, 46, 34, UP, "KD555", (37, 23), 3),
    Part("C1", parts.can, -78, 12, 0.0, "47", (31, 31), 9),
    Part("C2", parts.can, 66, -52, UP, "22", (31, 31), 9),
    Part("Y1", parts.crystal, -26, 66, 0.0, "16.0", (36, 14), 4),
    Part("J1", parts.header, 10, 100, 0.0, "", (74, 13), 5),
    Part("D1", parts.diode, -82, -70, UP, "", (19, 11.5), 2),
    Part("D2", parts.led, 92, 82, 0.0, "", (14, 10), 2),
    Part("R1", parts.resistor, -34, -86, 0.0, "103"),
    Part("R2", parts.resistor, 4, -86, 0.0, "472"),
    Part("R3", parts.resistor, 14, -40, UP, "221"),
    Part("R4", parts.resistor, -26, 0, 0.0, "104"),
    Part("R5", parts.resistor, 92, 8, UP, "331"),
    Part("R6", parts.resistor, -84, 84, 0.0, "102"),
    Part("C3", parts.capacitor, -26, 26, 0.0),
    Part("C4", parts.capacitor, 40, -86, 0.0),
    Part("C5", parts.capacitor, -84, 54, 0.0),
    Part("C6", parts.capacitor, 92, 44, UP),
)
TRACES = (
    ((-34, -31), (-34, -12), (-56, 10), (-56, 40), (-76, 54)),
    ((-42, -86), (-60, -86), (-82, -66)),
    ((-26, -86), (-4, -86)),
    ((12, -86), (32, -86)),
    ((48, -86), (66, -68)),
    ((14, -32), (14, -8), (30, 8), (30, 22)),
    ((-18, 0), (10, 0), (32, 22)),
    ((-18, 26), (4, 26), (28, 46)),
    ((-34, 0), (-34, 26)),
    ((62, 22), (76, 8), (92, 0)),
    ((62, 46), (76, 52), (92, 52)),
    ((-44, 66), (-70, 66), (-76, 54)),
    ((-8, 66), (8, 76), (8, 96)),
    ((62, 40), (84, 82)),
    ((46, 60), (46, 86), (36, 96)),
    ((-76, 84), (-40, 84), (-22, 98)),
    ((66, -36), (66, -12), (92, 14)),
    ((-22, -61), (-22, -70), (-4, -74), (14, -48)),
    ((-47, -61), (-60, -74), (-100, -74), (-108, -40), (-108, 90)),
    ((82, -52), (106, -30), (106, 90)),
    ((-10, -31), (0, -20), (40, -20), (54, -36)),
)
HOLES = ((-112, -112), (112, -112), (-112, 112), (112, 112))
VIAS = ((-60, -30), (36, -60), (-4, -16), (-50, 100), (78, 66), (0, 48), (-104, 30), (20, 64), (96, -84), (-66, -44))
BRIDGES = ("U1", "U2")
DENSITY, REACH = 3, 290


def _faulty(flaw: Flaw) -> tuple[Part, ...]:
    """The layout with one part missing, two exchanged or one turned round."""
    table = {part.name: part for part in LAYOUT}
    if flaw.kind == "missing_part":
        names = ("U1", "C1", "D1", "Y1", "C5") if flaw.severity > 0.5 else ("C3", "C4", "R2", "R3", "R4", "D2")
        del table[str(flaw.rng.choice(names))]
    elif flaw.kind == "wrong_polarity":
        name = str(flaw.rng.choice(["C1", "C2"] if flaw.severity > 0.45 else ["D1", "U1", "U2", "D2"]))
        table[name] = replace(table[name], turn=table[name].turn + np.pi)
    elif flaw.kind == "swapped_parts":
        pairs = (("R4", "C3"), ("R6", "C5"), ("R5", "C6"), ("R2", "C4"), ("D2", "C6"), ("R1", "D2"))
        one, two = pairs[flaw.rng.integers(len(pairs))]
        first, second = table[one], table[two]
        table[one] = replace(first, draw=second.draw, mark=second.mark, size=second.size)
        if flaw.severity > 0.3:
            table[two] = replace(second, draw=first.draw, mark=first.mark, size=first.size)
    return tuple(table.values())


@lru_cache(maxsize=1)
def _artwork() -> tuple[Array, ...]:
    """Copper, gap beside copper, tinned metal, drilled holes and white legend, each [DENSITY * REACH] squared, 0..1.

    They are the same on every board, so they are drawn once and then looked up.
    """
    axis = (np.arange(DENSITY * REACH, dtype=np.float32) + 0.5) / DENSITY - REACH / 2
    u, v = np.meshgrid(axis, axis)
    copper = np.full(u.shape, 99, np.float32)
    for k, points in enumerate(TRACES):
        copper = np.minimum(copper, polyline(u, v, np.asarray(points, np.float32))[0] - (2.0 if k % 4 == 0 else 1.3))
    metal, drilled = np.full(u.shape, 99, np.float32), np.full(u.shape, 99, np.float32)
    for places, ring, hole in ((VIAS, 3.4, 1.5), (HOLES, 9.5, 6.2)):
        for across, down in places:
            r = np.hypot(u - across, v - down)
            metal, drilled = np.minimum(metal, r - ring), np.minimum(drilled, r - hole)
    white = np.zeros(u.shape, np.float32)
    for part in LAYOUT:
        for x, y, w, h in part.pads:
            metal = np.minimum(metal, box(u - x, v - y, w, h, 1.0))
        w, h = part.outline
        white = np.maximum(white, text(u - part.x - w / 2 - 6, v - part.y - h / 2 - 6, part.name, 5.2))
        white = np.maximum(white, cover(np.abs(box(u - part.x, v - part.y, w + 14, h + 14, 1)) - 0.4, 0.5))
    return cover(copper), cover(copper - 0.9), cover(metal), cover(drilled), white


def _bare_board(rng: np.random.Generator, u: Array, v: Array) -> Array:
    """Solder mask over copper traces, vias, pads, mounting holes and white legend, without parts."""
    places = [(v + REACH / 2) * DENSITY - 0.5, (u + REACH / 2) * DENSITY - 0.5]
    sheets = [ndimage.map_coordinates(sheet, places, order=1, prefilter=False, mode="nearest") for sheet in _artwork()]
    copper, gap, metal, drilled, white = sheets
    weave = np.sin(2.1 * u) * np.sin(2.1 * v)
    tint = 1 + 0.03 * weave + 0.05 * band(rng, CANVAS, 2, 60, slope=1) + 0.04 * smooth(rng, CANVAS, 5)
    mask = tint * (1 - 0.2 * gap)
    board = jitter(rng, linear(22, 84, 58), 0.10) * mask[..., None]
    board = mix(board, linear(54, 122, 80) * tint[..., None], copper)
    board = mix(board, linear(222, 226, 218), rng.uniform(0.7, 0.9) * white)
    board = mix(board, parts.TIN * np.asarray([0.8, 0.74, 0.58], np.float32) * tint[..., None], metal)
    return mix(board, parts.BLACK * 0.5, drilled)


def _place(picture: Array, u: Array, v: Array, part: Part, rng: np.random.Generator) -> Array:
    """Draws a part with its tolerance and shadow into the picture, in a window around its place."""
    dx, dy = rng.normal(0, 0.5, 2)
    turn, tone = part.turn + rng.normal(0, 0.025), 1 + rng.normal(0, 0.06)
    near = np.hypot(u[::8, ::8] - part.x, v[::8, ::8] - part.y) < max(part.size) / 2 + 14
    rows, columns = 8 * np.flatnonzero(near.any(1)), 8 * np.flatnonzero(near.any(0))
    window = np.s_[rows[0] : rows[-1] + 8, columns[0] : columns[-1] + 8]
    a, b = u[window] - part.x - dx, v[window] - part.y - dy
    cos, sin = np.cos(turn), np.sin(turn)
    p, q = a * cos + b * sin, b * cos - a * sin
    fall = 0.6 * part.tall
    sp, sq = (a - fall) * cos + (b - fall) * sin, (b - fall) * cos - (a - fall) * sin
    dark = picture[window] * (1 - 0.6 * cover(box(sp, sq, *part.size, 2), 1.5 + part.tall / 2))[..., None]
    drawn = part.draw(dark, p, q, part.mark)
    solid = np.abs(drawn - dark).max(-1, keepdims=True) > 1e-6
    picture[window] = np.where(solid, drawn * tone, dark)
    return picture


def paint(rng: np.random.Generator, flaw: Flaw | None) -> Array:
    """Linear light [CANVAS, CANVAS, 3] of the board."""
    u, v = pose(rng, shift=5, turn=1.3, zoom=0.012)
    picture = _bare_board(rng, u, v)
    tolerance = {part.name: np.random.default_rng(rng.integers(2**32)) for part in LAYOUT}
    for part in _faulty(flaw) if flaw else LAYOUT:
        picture = _place(picture, u, v, part, tolerance[part.name])
    if flaw and flaw.kind == "solder_bridge":
        chip = {part.name: part for part in LAYOUT}[str(flaw.rng.choice(BRIDGES))]
        leg, side = flaw.rng.integers(3) - 1, flaw.rng.choice([-1, 1])
        a, b = u - chip.x, v - chip.y
        p, q = a * np.cos(chip.turn) + b * np.sin(chip.turn), b * np.cos(chip.turn) - a * np.sin(chip.turn)
        d = box(p - leg * 8.4, q - side * (17 + flaw.rng.normal(0, 1)), flaw.between(13, 19), flaw.between(9, 15), 3.0)
        sheen = 0.95 + 0.25 * np.sin(p * 0.9 + 1) + 0.12 * smooth(flaw.rng, CANVAS, 60)
        picture = mix(picture, parts.TIN * sheen[..., None], cover(d + 0.4 * smooth(flaw.rng, CANVAS, 80)))
    glare = smooth(rng, CANVAS, 4)
    return picture * (1 + 0.05 * glare)[..., None]
