"""Features of teacher and student at one level side by side: what both see in an image, and where they disagree.

    image         three principal components   strongest channels ...   the teacher's
    level map     the student's on those axes  the student's
    anomaly map   distance of the features     absolute differences

The principal components are those of the teacher's features over the positions of this image; the student's features
are projected onto the same axes and coloured on the same range. Channels are in standard deviations of the teacher's
channel over this image, so that all of them share one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdlib.canvas import FEATURE_COLOURS, MAP_COLOURS, picture
from kdlib.lettering import lettered, name
from kdlib.scoring.detector import Detector, Scorer
from kdlib.scoring.inputs import ImageLike, decoded, resized, size_of

if TYPE_CHECKING:
    from kdlib.contract import Distiller, Pairs

Order = Literal["strength", "disagreement"]
_SHOWN = (-2.0, 4.0)  # standard deviations from a channel's mean; features after a ReLU lean to one side


@lettered
def features(
    model: Distiller | Scorer,
    image: ImageLike,
    *,
    level: int = 0,
    channels: int | Sequence[int] = 4,
    order: Order = "strength",
    unit: bool = True,
    size: tuple[int, int] | None = None,
    title: str = "",
    width: float = 11.0,
) -> Figure:
    """Feature maps of teacher and student at one level, and where they disagree.

    Args:
        model: A trained method, or a detector.
        image: One image of any kind, see `kdlib.score`.
        level: Of the pyramid, 0 is the finest.
        channels: How many channels to draw, or which.
        order: Which channels come first: those on which the teacher's features vary most, or those on which teacher
            and student differ most.
        unit: Divide every feature by its length first, as methods do that compare directions; else as they are.
        size: Working height and width in pixels; default: the detector's, or the image's own.
        title: Of the figure.
        width: Inches, 1 or more.

    Raises:
        ValueError: If `model` is something else or has no student, there is no such level, channel or order, the image
            cannot be read, or `size` or `width` is no size.
    """
    if not isinstance(width, Real) or not isfinite(width) or width < 1:
        raise ValueError(f"width is {width!r}; expected 1 inch or more")
    scorer = model if isinstance(model, Scorer) else Scorer(model)
    detector = model if isinstance(model, Detector) else None
    drawn = decoded(image, detector.white if detector else None)
    usual = detector.size if detector else size_of(drawn)
    x = resized(drawn, usual if size is None else _checked(size))
    t, s, level_map, amap = _seen(scorer, x, level)
    if unit:
        t, s = (f / np.maximum(np.linalg.norm(f, axis=0), 1e-12) for f in (t, s))
    chosen = _chosen(t, s, channels, order)
    figure, axes, bars = _axes(2 + len(chosen), x.shape[1] / x.shape[2], width)
    axes[0, 0].imshow(picture(x))
    _map(axes[1, 0], level_map)
    _map(axes[2, 0], amap, *((detector.scale.low, detector.scale.high) if detector else ()))
    for axis, shown in zip(axes[:2, 1], _components(t, s), strict=True):
        axis.imshow(shown)
    _map(axes[2, 1], np.linalg.norm(t - s, axis=0))
    _channels(axes[:, 2:], bars, t[chosen], s[chosen])
    titles = ["image", "3 components", *(f"channel {c}" for c in chosen)]
    for axis, text in [*zip(axes[0], titles, strict=True), (axes[1, 0], "level map"), (axes[2, 0], "anomaly map")]:
        axis.set_title(text, fontsize=9)
    axes[2, 1].set_title("distance", fontsize=9)
    for axis, text in zip(axes[:, 1], ("teacher", "student", "disagreement"), strict=True):
        axis.set_ylabel(text, fontsize=9)
    what, positions = f"{title}: " if title else "", f"{t.shape[1]} x {t.shape[2]} positions"
    figure.suptitle(name(f"{what}level {level}, {positions}, {t.shape[0]} channels"), fontsize=10)
    figure.set_label(
        f"{what}Features of teacher and student at level {level} ({positions}): the image, its level map and "
        f"anomaly map; three principal components as colours; channels {', '.join(map(str, chosen))} on one scale; "
        "differences."
    )
    return figure


def drawable(detector: Detector) -> range:
    """The levels that `features` can draw.

    Raises:
        ValueError: If the method has no student.
    """
    with torch.inference_mode():
        return range(len(_pairs(detector, torch.zeros(1, 3, *detector.size))))


def _pairs(scorer: Scorer, batch: torch.Tensor) -> Pairs:
    try:
        return scorer.model.pairs(batch.to(next(scorer.parameters()).device))
    except NotImplementedError:
        raise ValueError(f"'{scorer.model.name}' has no student, whose features could be drawn") from None


def _seen(scorer: Scorer, x: torch.Tensor, level: int) -> tuple[NDArray[Any], ...]:
    """Teacher's and student's features [C, h, w], level map [h, w] and anomaly map [H, W] of an image [3, H, W]."""
    batch = x[None].to(next(scorer.parameters()).device)
    with torch.inference_mode():
        pairs = _pairs(scorer, batch)
        if _whole(level).shape != () or not 0 <= level < len(pairs):
            raise ValueError(f"there is no level {level!r}; expected 0 to {len(pairs) - 1}, fine to coarse")
        t, s = pairs[level]
        tensors = (t[0], s[0], scorer.model.distance(t, s)[0], scorer.anomaly_map(batch)[0, 0])
    return tuple(tensor.float().cpu().numpy() for tensor in tensors)


def _chosen(t: NDArray[Any], s: NDArray[Any], channels: int | Sequence[int], order: Order) -> list[int]:
    """Numbers of the channels that are drawn."""
    if order not in ("strength", "disagreement"):
        raise ValueError(f"order is {order!r}; expected strength or disagreement")
    numbers = _whole(channels)
    chosen = numbers.tolist() if numbers.ndim == 1 else []
    if numbers.ndim == 0:
        strength = t.var(axis=(1, 2)) if order == "strength" else np.square(t - s).mean(axis=(1, 2))
        chosen = np.argsort(-strength, kind="stable")[: max(int(numbers), 0)].tolist()
    if not chosen or not 0 <= min(chosen) <= max(chosen) < len(t):
        raise ValueError(f"channels are {channels!r}; expected one or more, of 0 to {len(t) - 1}")
    return chosen


def _checked(size: object) -> tuple[int, int]:
    """A working height and width in pixels.

    Raises:
        ValueError: If these are no two positive whole numbers.
    """
    numbers = _whole(size)
    if numbers.shape != (2,) or numbers.min() < 1:
        raise ValueError(f"size is {size!r}; expected height and width in pixels, such as (256, 256)")
    return int(numbers[0]), int(numbers[1])


def _whole(value: Any) -> NDArray[Any]:
    """A whole number or several as an array, NumPy's included; an empty one for anything else."""
    numbers = np.asarray(value)
    return numbers if numbers.dtype.kind in "iu" else np.array([], dtype=int)


def _components(t: NDArray[Any], s: NDArray[Any]) -> list[NDArray[Any]]:
    """Teacher and student as colours [h, w, 3]: the teacher's three principal components as red, green and blue."""
    flat = t.reshape(len(t), -1)
    mean = flat.mean(axis=1, keepdims=True)
    axes = np.linalg.svd(flat - mean, full_matrices=False)[0][:, :3]
    axes *= np.where(axes.sum(axis=0) < 0, -1, 1)  # or the signs, and with them the colours, are a matter of chance
    projected = [axes.T @ (features.reshape(len(t), -1) - mean) for features in (t, s)]
    low, high = np.percentile(projected[0], (1, 99), axis=1)
    shown = []
    for values in projected:
        colours = np.zeros((3, flat.shape[1]))
        colours[: len(values)] = (values - low[:, None]) / np.maximum(high - low, 1e-12)[:, None]
        shown.append(np.clip(colours, 0, 1).reshape(3, *t.shape[1:]).transpose(1, 2, 0))
    return shown


def _channels(axes: NDArray[Any], bars: tuple[Axes, Axes], t: NDArray[Any], s: NDArray[Any]) -> None:
    """Draws channels [K, h, w] of teacher and student and their differences, a column each, and two colour bars."""
    mean, spread = t.mean(axis=(1, 2), keepdims=True), np.maximum(t.std(axis=(1, 2), keepdims=True), 1e-12)
    differences = np.abs(t - s) / spread
    for row, values in enumerate((t, s)):
        for axis, shown in zip(axes[row], (values - mean) / spread, strict=True):
            drawn = axis.imshow(shown, cmap=FEATURE_COLOURS, vmin=_SHOWN[0], vmax=_SHOWN[1])
    highest = max(float(differences.max()), 1e-12)
    for axis, shown in zip(axes[2], differences, strict=True):
        apart = axis.imshow(shown, cmap=MAP_COLOURS, vmin=0, vmax=highest)
    for image, bar, label in ((drawn, bars[0], "standard deviations"), (apart, bars[1], "difference")):
        bar.figure.colorbar(image, cax=bar).set_label(label, fontsize=9)
        bar.tick_params(labelsize=8)


def _map(axis: Axes, values: NDArray[Any], low: float | None = None, high: float | None = None) -> None:
    """Draws a map, from black to bright, and writes below it which values these are."""
    low, high = float(values.min()) if low is None else low, float(values.max()) if high is None else high
    axis.imshow(values, cmap=MAP_COLOURS, vmin=low, vmax=high)
    axis.set_xlabel(f"{low:.2g} to {high:.2g}", fontsize=8)


def _axes(columns: int, shape: float, width: float) -> tuple[Figure, NDArray[Any], tuple[Axes, Axes]]:
    """Three rows of axes for pictures of this height to width, and two for colour bars at the right."""
    cell = (width - 0.9) / (columns + 0.08)
    figure = plt.figure(figsize=(width, 3 * (shape * cell + 0.12) + 0.75), layout="constrained")
    grid = figure.add_gridspec(3, columns + 1, width_ratios=[1] * columns + [0.08])
    axes = np.array([[figure.add_subplot(grid[row, column]) for column in range(columns)] for row in range(3)])
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    return figure, axes, (figure.add_subplot(grid[:2, columns]), figure.add_subplot(grid[2, columns]))
