"""Figures of the notebooks that show test images large, with the truth drawn on the maps.

Maps are shown in units of their detector's threshold: where one pixel exceeds 1, the image is called anomalous.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.metrics import roc_curve
from torch import Tensor
from torch.nn import functional as F

from kdlib import viz
from kdlib.data.records import ImageSet
from kdlib.lettering import lettered
from kdlib.scoring.detector import Detector
from kdlib.scoring.result import Result

OUTLINE = "#7fffd4"
TILE = 2.05  # inches of an image, some 200 pixels on screen
_BRIGHTEST = 2.0  # thresholds
_WORDS = {(1, 1): "found", (1, 0): "missed", (0, 1): "false alarm", (0, 0): "passed"}


def outline(axis: Axes, mask: ArrayLike | None) -> None:
    """Draws the border of a mask [H, W] on an image or map, where it has one."""
    if mask is not None and np.asarray(mask).any():
        axis.contour(np.asarray(mask, dtype=float), [0.5], colors=[OUTLINE], linewidths=1.2)


@lettered
def beside(
    images: Sequence[ArrayLike],
    maps: Mapping[str, Sequence[ArrayLike]],
    masks: Sequence[ArrayLike | None] | None = None,
    *,
    titles: Sequence[str] = (),
    captions: Mapping[str, Sequence[str]] | None = None,
    label: str = "map, in thresholds",
    brightest: float = _BRIGHTEST,
    dimmest: float | None = None,
    alt: str = "",
) -> Figure:
    """Images [3, H, W] or [H, W, 3] from top to bottom and beside each its maps [H, W] by name, on one colour scale.

    The maximum of a map stands below it, since what is brighter than `brightest` looks the same. `masks` have the
    images' size and are outlined on the maps, `titles` name the images, `captions` replace the maxima. The scale is
    linear from 0, or logarithmic from `dimmest`, for maps whose values differ by orders of magnitude.
    """
    rows, columns = len(images), 1 + len(maps)
    norm = LogNorm(dimmest, brightest, clip=True) if dimmest else Normalize(0, brightest)
    size = (columns * TILE + 0.7, rows * (TILE + 0.22) + 0.3)
    figure, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for row, line in enumerate(axes):
        picture = viz.picture(images[row])
        height, width = picture.shape[:2]
        line[0].imshow(picture)
        line[0].set_xlabel(titles[row] if titles else "", fontsize=9)
        for axis, (name, of_image) in zip(line[1:], maps.items(), strict=True):
            amap = np.asarray(of_image[row], dtype=float)
            frame = (-0.5, width - 0.5, height - 0.5, -0.5)  # maps of any size lie where the picture lies
            drawn = axis.imshow(amap, cmap=viz.MAP_COLOURS, norm=norm, extent=frame)
            outline(axis, masks[row] if masks else None)
            axis.set_xlabel(captions[name][row] if captions else f"maximum {amap.max():.2f}", fontsize=9)
    for axis, name in zip(axes[0], ("image", *maps), strict=True):
        axis.set_title(name, fontsize=10)
    plt.setp(axes, xticks=[], yticks=[])
    figure.colorbar(drawn, ax=axes, label=label, extend="both" if dimmest else "max", fraction=0.025, pad=0.01)
    figure.set_label(alt or f"{rows} images and their maps: {', '.join(maps)}")
    return figure


@lettered
def features(x: Tensor, levels: Sequence[Tensor], strides: Sequence[int], *, alt: str = "") -> Figure:
    """What a teacher sees in an image [1, 3, H, W]: each level's features [1, C, h, w] in three views.

    They are the image on the grid of the level, the channel that varies most, and the first three principal components
    as red, green and blue.
    """
    figure, axes = plt.subplots(len(levels), 3, figsize=(5.2, 1.75 * len(levels)), layout="constrained", squeeze=False)
    for row, stride, t in zip(axes, strides, levels, strict=True):
        grid = F.interpolate(x, size=t.shape[2:], mode="area")[0].permute(1, 2, 0)
        lively = int(t[0].flatten(1).std(1).argmax())
        for axis, view in zip(row, (grid, t[0, lively], _components(t[0])), strict=True):
            axis.imshow(view.numpy(), cmap=viz.FEATURE_COLOURS)
        row[0].set_ylabel(f"stride {stride}")
    for axis, name in zip(axes[0], ("image on this grid", "one channel", "three components"), strict=True):
        axis.set_title(name, fontsize=10)
    plt.setp(axes, xticks=[], yticks=[])
    figure.set_label(alt or f"Features at strides {list(strides)}: image, one channel, components")
    return figure


def verdicts(result: Result, threshold: float) -> list[str]:
    """What a threshold makes of every image: found, missed, false alarm or passed."""
    called = result.scores.astype(np.float64) > threshold
    return [_WORDS[int(label), int(call)] for label, call in zip(result.labels, called, strict=True)]


@lettered
def decision(result: Result, images: ImageSet, detector: Detector, times: float, *, title: str = "") -> Figure:
    """What moves with a threshold: the confusion table, the point on the ROC curve, and the verdicts on four images.

    The images are, of the normal and of the defective ones, the one with the median score and the hardest one.

    Args:
        result: Scores of all images, and the masks of these four.
        images: Their pictures.
        detector: Whose threshold normal images have set.
        times: The threshold that is shown, in units of that one.
        title: Of the figure.
    """
    unit = detector.threshold.value
    words = verdicts(result, times * unit)
    figure = plt.figure(figsize=(8.6, 5.3), layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(1, 1))
    table, roc, scores = figure.add_subfigure(grid[0]).subplots(1, 3, width_ratios=(1.1, 1, 1.5))
    _confusion(table, words)
    _roc(roc, result, times * unit)
    _scores(scores, result, unit, times)
    for axis, i in zip(figure.add_subfigure(grid[1]).subplots(1, 4), _telling(result), strict=True):
        axis.imshow(viz.picture(images[i]["image"]))
        outline(axis, result.mask_of(i))
        axis.set(xticks=[], yticks=[], xlabel=f"score {result.scores[i] / unit:.2f}")
        axis.set_title(f"{result.defects[i]}: {words[i]}".replace("_", " "), fontsize=10)
    counts = ", ".join(f"{words.count(word)} {word}" for word in _WORDS.values())
    figure.set_label(f"{title}, threshold times {times:.2f}: {counts}; ROC curve, histogram, verdicts on four images.")
    figure.suptitle(f"{title}: threshold = {times:.2f} x the one from normal images", fontsize=10)
    return figure


def _telling(result: Result) -> list[int]:
    """Positions of a usual and the hardest normal image, and of a usual and the hardest defective one."""
    normal, defective = (np.flatnonzero(result.labels == label) for label in (0, 1))
    normal = normal[np.argsort(result.scores[normal])]
    defective = defective[np.argsort(result.scores[defective])[::-1]]
    return [int(of[place]) for of in (normal, defective) for place in (len(of) // 2, -1)]


def _confusion(axis: Axes, words: list[str]) -> None:
    for (label, call), word in _WORDS.items():
        colour = viz.CHOSEN if label == call else viz.ANOMALOUS
        axis.add_patch(plt.Rectangle((call, 1 - label), 1, 1, color=colour, alpha=0.35, linewidth=0))
        text = f"{words.count(word)}\n{word}"
        axis.text(call + 0.5, 1.5 - label, text, ha="center", va="center", fontsize=11)
    axis.set(xlim=(0, 2), ylim=(2, 0), xticks=[0.5, 1.5], yticks=[0.5, 1.5])
    axis.set_xticklabels(["called\nnormal", "called\nanomalous"], fontsize=9)
    axis.set_yticklabels(["defective", "normal"], fontsize=9)
    axis.tick_params(length=0)


def _roc(axis: Axes, result: Result, threshold: float) -> None:
    false, true, _ = roc_curve(result.labels, result.scores)
    called = result.scores > threshold
    axis.plot(false, true, color=viz.NORMAL)
    axis.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    point = [called[result.labels == label].mean() for label in (0, 1)]
    axis.plot(*point, "o", color=viz.ANOMALOUS, markersize=8)
    axis.set(xlabel="false alarms / normal", ylabel="found / defective", aspect="equal")
    axis.set_title("ROC curve and our point", fontsize=10)


def _scores(axis: Axes, result: Result, unit: float, times: float) -> None:
    """Histogram in thresholds, on a logarithmic axis: products of levels reach far."""
    scores = result.scores / unit
    edges = np.geomspace(scores.min(), scores.max(), 25).tolist()
    for label, colour, kind in ((0, viz.NORMAL, "normal"), (1, viz.ANOMALOUS, "defective")):
        axis.hist(scores[result.labels == label], edges, color=colour, alpha=0.7, label=kind)
    axis.axvline(times, color="black", linestyle="--", linewidth=1.2, label="threshold")
    axis.set(xscale="log", xlabel="image score, in thresholds", ylabel="images")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.legend(frameon=False, fontsize=9)


def _components(t: Tensor) -> Tensor:
    """The first three principal components of features [C, h, w] as colours [h, w, 3]."""
    flat = t.flatten(1).T
    _, _, axes = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    colours = (flat - flat.mean(0)) @ axes[:3].T
    low, high = colours.quantile(0.02, 0), colours.quantile(0.98, 0)
    return ((colours - low) / (high - low)).clamp(0, 1).view(*t.shape[1:], 3)
