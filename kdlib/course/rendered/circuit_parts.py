"""Parts of a circuit board. Each draws itself at local coordinates u (right), v (down) in pixels into a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kdlib.course.rendered.noise import Array
from kdlib.course.rendered.optics import linear, mix
from kdlib.course.rendered.shapes import box, cover, text

TIN, BLACK = linear(196, 198, 200), linear(38, 38, 42)
Draw = Callable[[Array, Array, Array, str], Array]


def _solder(picture: Array, u: Array, v: Array, wide: float, high: float) -> Array:
    """A tinned pad with a rounded, gleaming fillet."""
    d = box(u, v, wide, high, 1.0)
    gleam = 0.55 + 0.35 * cover(np.hypot(u / wide * 2 + 0.3, v / high * 2 + 0.3) - 0.5, 0.4)
    return mix(picture, TIN * gleam[..., None], cover(d))


def _block(picture: Array, u: Array, v: Array, size: tuple[float, float], colour: Array, bevel: float = 1.2) -> Array:
    """A moulded body with lit upper left and dark lower right edges."""
    d = box(u, v, *size, 0.8)
    edge = cover(np.abs(d + bevel / 2) - bevel / 2, 0.6)
    lit = np.where(u / size[0] + v / size[1] < 0, 0.30, -0.35)
    return mix(picture, colour * (1 + edge * lit)[..., None], cover(d))


def resistor(picture: Array, u: Array, v: Array, mark: str) -> Array:
    """Chip resistor: black with a white code."""
    for side in (-1, 1):
        picture = _solder(picture, u - side * 8.0, v, 6.5, 9.5)
    picture = _block(picture, u, v, (14.5, 8.2), BLACK)
    for side in (-1, 1):
        picture = mix(picture, TIN * 0.9, cover(box(u - side * 6.6, v, 2.4, 8.2)))
    return mix(picture, linear(214, 214, 210), 0.85 * text(u, v, mark, 4.4))


def capacitor(picture: Array, u: Array, v: Array, mark: str) -> Array:
    """Ceramic chip capacitor: plain tan; `mark` sets nothing."""
    for side in (-1, 1):
        picture = _solder(picture, u - side * 8.0, v, 6.5, 9.5)
    picture = _block(picture, u, v, (14.5, 8.6), linear(164, 128, 92), 2.0)
    for side in (-1, 1):
        picture = mix(picture, TIN * 0.8, cover(box(u - side * 6.4, v, 3.0, 8.6)))
    return picture


def diode(picture: Array, u: Array, v: Array, mark: str) -> Array:
    """Moulded diode with its cathode band on the left."""
    for side in (-1, 1):
        picture = _solder(picture, u - side * 10.5, v, 6.5, 8.0)
    picture = _block(picture, u, v, (19.0, 11.5), BLACK * 1.3)
    return mix(picture, linear(205, 205, 200), 0.9 * cover(box(u + 6.2, v, 2.8, 11.0)))


def led(picture: Array, u: Array, v: Array, mark: str) -> Array:
    """Light-emitting diode: a white frame, a yellow lens, a green corner at its cathode."""
    for side in (-1, 1):
        picture = _solder(picture, u - side * 8.0, v, 6.0, 9.0)
    picture = _block(picture, u, v, (14.0, 10.0), linear(216, 214, 206))
    picture = mix(picture, linear(214, 178, 70), cover(np.hypot(u, v) - 3.9))
    picture = mix(picture, linear(246, 236, 190), cover(np.hypot(u + 1.2, v + 1.2) - 1.1, 0.8))
    return mix(picture, linear(60, 150, 84), cover(box(u + 5.4, v + 3.4, 2.2, 2.2)))


def can(picture: Array, u: Array, v: Array, mark: str) -> Array:
    """Electrolytic capacitor: an aluminium can on a black base, a dark segment at its minus pole on the left."""
    picture = _block(picture, u, v, (31.0, 31.0), BLACK * 1.1)
    r = np.hypot(u, v)
    phi = np.arctan2(v, u)
    metal = 0.62 + 0.16 * np.cos(2 * (phi + 0.8)) + 0.25 * cover(np.abs(r - 13.0) - 0.7, 0.7) * np.cos(phi + 2.3)
    picture = mix(picture, TIN * metal[..., None] * 0.9, cover(r - 14.2))
    picture = mix(picture, BLACK * 1.5, cover(np.maximum(r - 12.0, u + 5.8)) * 0.92)
    return mix(picture, linear(52, 52, 56), 0.8 * text(u - 3.2, v, mark, 6.5))


def chip(picture: Array, u: Array, v: Array, mark: str) -> Array:
    """Integrated circuit with eight legs, a printed name and a dot at leg 1 (lower left)."""
    for k in range(4):
        for side in (-1, 1):
            x, y = (k - 1.5) * 8.4, side * 15.0
            picture = _solder(picture, u - x, v - y, 4.2, 9.5)
            picture = mix(picture, TIN * 0.75, cover(box(u - x, v - y + side * 2.2, 2.8, 6.5, 0.5)))
    picture = _block(picture, u, v, (37.0, 23.0), BLACK, 1.6)
    picture = mix(picture, BLACK * 0.35, cover(np.hypot(u + 14.2, v - 7.4) - 1.7))
    return mix(picture, linear(168, 168, 164), 0.8 * text(u + 1, v - 0.5, mark, 6.2))


def crystal(picture: Array, u: Array, v: Array, mark: str) -> Array:
    """Quartz crystal in an oval steel can."""
    d = box(u, v, 36.0, 14.0, 7.0)
    picture = mix(picture, TIN * 0.62, cover(d))
    picture = mix(picture, TIN * (0.86 - 0.02 * v)[..., None], cover(d + 2.4))
    return mix(picture, linear(70, 72, 76), 0.7 * text(u, v, mark, 5.0))


def header(picture: Array, u: Array, v: Array, mark: str) -> Array:
    """Row of six gilded pins in a black strip."""
    picture = _block(picture, u, v, (74.0, 13.0), BLACK)
    for k in range(6):
        x = u - (k - 2.5) * 12.2
        picture = mix(picture, BLACK * 0.4, cover(box(x, v, 7.0, 7.0)))
        picture = mix(picture, linear(216, 182, 96), cover(box(x, v, 4.0, 4.0, 0.6)))
        picture = mix(picture, linear(250, 236, 190), cover(box(x + 0.7, v + 0.7, 1.4, 1.4), 0.6))
    return picture


@dataclass(frozen=True)
class Part:
    """A part on the board: name on the silkscreen, how it is drawn, place, rotation, print, footprint and height."""

    name: str
    draw: Draw
    x: float
    y: float
    turn: float = 0.0
    mark: str = ""
    size: tuple[float, float] = (14.5, 8.4)
    tall: float = 1.5

    @property
    def outline(self) -> tuple[float, float]:
        """Width and height as it lies on the board."""
        return self.size if abs(np.sin(self.turn)) < 0.5 else self.size[::-1]

    @property
    def pads(self) -> list[tuple[float, float, float, float]]:
        """Pads of the board below the part: x, y, width, height."""
        if self.draw is chip:
            local = [((k - 1.5) * 8.4, side * 15.0, 4.2, 9.5) for k in range(4) for side in (-1.0, 1.0)]
        elif self.draw in (header, crystal):
            local = []
        else:
            reach = self.size[0] / 2 + 1.0
            local = [(side * reach, 0.0, 6.5, min(self.size[1] + 1, 11)) for side in (-1.0, 1.0)]
        upright = abs(np.sin(self.turn)) > 0.5
        return [(self.x + y, self.y + x, h, w) if upright else (self.x + x, self.y + y, w, h) for x, y, w, h in local]
