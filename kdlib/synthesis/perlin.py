"""Perlin noise: random shapes of any fineness, the masks of synthetic defects."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

FINEST = 5  # at most 2^5 = 32 cells along an axis
THRESHOLD = 0.5


def perlin(size: tuple[int, int], cells: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Perlin noise [H, W], smooth, mean about 0, within about -1..1.

    Random unit vectors stand at the corners of a lattice; at every pixel the products of the four nearest with the way
    to them are interpolated by `6t^5 - 15t^4 + 10t^3`.

    Args:
        size: Height and width in pixels; they need be no multiples of the cells.
        cells: Cells of the lattice along height and width; more are finer.
        generator: Draws the vectors.

    Source: Perlin 1985 and 2002; used for defects by DRAEM (Zavrtanik et al., ICCV 2021).
    """
    angles = 2 * torch.pi * torch.rand(cells[0] + 1, cells[1] + 1, generator=generator)
    gradients = torch.stack([angles.cos(), angles.sin()])
    (row, v), (column, u) = (_in_cells(n, count) for n, count in zip(size, cells, strict=True))
    along_v, along_u = _fade(v)[:, None], _fade(u)[None, :]
    rows = []
    for down in (0, 1):
        left, right = (_product(gradients, row + down, column + aside, v - down, u - aside) for aside in (0, 1))
        rows.append(torch.lerp(left, right, along_u.expand_as(left)))
    return sqrt(2) * torch.lerp(rows[0], rows[1], along_v.expand_as(rows[0]))


def perlin_mask(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """A random mask, bool [1, H, W], empty in about one of twenty draws.

    Cells along each axis are 2^k with k in 0..5, each drawn alone; the noise is turned by -90..90 degrees and is a
    defect above 0.5. Source: DRAEM.
    """
    rows, columns = (2 ** int(k) for k in torch.randint(FINEST + 1, (2,), generator=generator))
    noise = perlin(size, (rows, columns), generator)[None]
    angle = 180 * float(torch.rand((), generator=generator)) - 90
    return tv.rotate(noise, angle, interpolation=InterpolationMode.BILINEAR) > THRESHOLD


def _in_cells(pixels: int, cells: int) -> tuple[Tensor, Tensor]:
    """The cell in which every pixel along an axis lies, and how far in it, in 0..1."""
    place = torch.arange(pixels) * (cells / pixels)
    cell = place.floor()
    return cell.long(), place - cell


def _fade(t: Tensor) -> Tensor:
    return t**3 * (t * (6 * t - 15) + 10)


def _product(gradients: Tensor, row: Tensor, column: Tensor, v: Tensor, u: Tensor) -> Tensor:
    """Products [H, W] of the vectors at these corners with the way from there, `v` down and `u` aside."""
    down, aside = gradients[:, row[:, None], column[None, :]]
    return down * v[:, None] + aside * u[None, :]
