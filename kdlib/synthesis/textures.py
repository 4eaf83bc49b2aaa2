"""What synthetic defects are made of: textures of a folder, such as DTD's, or rendered ones.

A source gives a texture [3, H, W] in 0..1 for a size and a generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlib.data import open_image, resize_image
from kdlib.data.listing import image_files
from kdlib.files import expanded

Draw = Callable[[tuple[int, int], torch.Generator], Tensor]


class Textures(Protocol):
    """Gives a texture [3, H, W] in 0..1."""

    def __call__(self, size: tuple[int, int], generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class Rendered:
    """Textures drawn on the fly, which need no files: clouds, grain, stripes, checks, cells, each in random colours.

    They stand in for the Describable Textures Dataset, which the papers use; they are the course's own.
    """

    def __call__(self, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        draw = _KINDS[int(torch.randint(len(_KINDS), (), generator=generator))]
        share = draw(size, generator).clamp(0, 1)
        first, second = torch.rand(2, 3, 1, 1, generator=generator)
        return torch.lerp(first.expand(3, *size), second.expand(3, *size), share.expand(3, *size))


@dataclass(frozen=True)
class Folder:
    """Textures of a folder and the folders in it, resized plainly, as the papers do with DTD.

    Args:
        path: The folder.

    Raises:
        ValueError: If it holds no images.
    """

    path: str
    files: tuple[Path, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        root = expanded(self.path)
        folders = [root, *sorted(each for each in root.rglob("*") if each.is_dir())] if root.is_dir() else []
        object.__setattr__(self, "files", tuple(file for each in folders for file in image_files(each)))
        if not self.files:
            raise ValueError(
                f"textures is '{self.path}', a folder without images or no folder; expected one with images of "
                "textures, such as DTD's, or 'rendered'"
            )

    def __call__(self, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        file = self.files[int(torch.randint(len(self.files), (), generator=generator))]
        return resize_image(open_image(file), size).float() / 255


def textures(source: str) -> Textures:
    """The source that a configuration names: `rendered`, or a folder.

    Raises:
        ValueError: If the folder holds no images.
    """
    return Rendered() if source == "rendered" else Folder(source)


def _clouds(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    cells = 2 ** int(torch.randint(2, 7, (), generator=generator))
    coarse = torch.rand(1, 1, cells, cells, generator=generator)
    return F.interpolate(coarse, size=size, mode="bicubic")[0, 0]


def _grain(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    strength = 0.1 + 0.4 * torch.rand((), generator=generator)
    return 0.5 + strength * torch.randn(size, generator=generator)


def _stripes(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    wave = torch.sin(_along(size, generator) + 3 * _clouds(size, generator))
    sharpness = 1 + 4 * torch.rand((), generator=generator)
    return 0.5 + sharpness * wave / 2


def _checks(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    return (torch.sin(_along(size, generator)) * torch.sin(_along(size, generator)) > 0).float()


def _cells(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Every pixel has the grey of the nearest of some random points."""
    count = 2 ** int(torch.randint(3, 8, (), generator=generator))
    points, greys = torch.rand(count, 2, generator=generator), torch.rand(count, generator=generator)
    rows, columns = (torch.linspace(0, 1, n) for n in size)
    squared = (rows[:, None] - points[:, 0]).square()[:, None] + (columns[:, None] - points[:, 1]).square()[None]
    return greys[squared.argmin(2)]


def _along(size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """An angle that grows along a random direction, by 2 to 30 turns over the image, [H, W] in radians."""
    direction, turns = torch.rand(2, generator=generator) * torch.tensor([torch.pi, 28.0]) + torch.tensor([0.0, 2.0])
    rows, columns = (torch.linspace(0, 1, n) for n in size)
    return 2 * torch.pi * turns * (direction.sin() * rows[:, None] + direction.cos() * columns[None, :])


_KINDS: tuple[Draw, ...] = (_clouds, _grain, _stripes, _checks, _cells)
