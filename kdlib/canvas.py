"""What figures share: colours, images as matplotlib takes them, grids of empty axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from kdlib.lettering import name

MAP_COLOURS = "inferno"
FEATURE_COLOURS = "viridis"


def picture(image: ArrayLike) -> NDArray[Any]:
    """An image as [H, W, 3] for imshow, from [3, H, W] or [H, W, 3]."""
    array = np.asarray(image)
    return array.transpose(1, 2, 0) if array.ndim == 3 and array.shape[0] == 3 else array


def grid(count: int, columns: int, width: float, titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    """A figure of so many axes without frames, each with its title."""
    columns = min(columns, count)
    rows = -(-count // columns)
    size = (width, rows * width / columns * 1.12)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.set_frame_on(False)
    for axis, title in zip(axes.flat, titles, strict=False):
        axis.set_title(name(title), fontsize=9)
    return figure, list(axes.flat)
