"""Every figure. Each function returns a Figure whose label is its alt text; `show` puts both into a notebook.

Titles and names are drawn as they are, dollar signs and other scripts included.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from numpy.typing import ArrayLike

from kdlib.canvas import FEATURE_COLOURS as FEATURE_COLOURS
from kdlib.canvas import MAP_COLOURS, grid, picture
from kdlib.data.records import ImageSet
from kdlib.feature_sheet import features as features
from kdlib.lettering import lettered, name
from kdlib.png import bundle
from kdlib.png import show as show
from kdlib.scoring.calibration import Scale, Threshold
from kdlib.scoring.result import Result, examples

if TYPE_CHECKING:
    from kdlib.scoring.detector import Detector
    from kdlib.training.state import History

NORMAL, ANOMALOUS, CHOSEN = "#3b6ea5", "#d1603d", "#6a994e"


@lettered
def contact_sheet(
    images: Sequence[ArrayLike],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 6,
    alt: str = "",
    width: float = 9.0,
) -> Figure:
    """Images [H, W, 3] or [3, H, W] side by side, each with a title."""
    titles = titles or []
    figure, axes = grid(len(images), columns, width, titles)
    for axis, image in zip(axes, images, strict=False):
        axis.imshow(picture(image))
    figure.set_label(alt or f"{len(images)} images: {', '.join(titles)}")
    return figure


@lettered
def map_sheet(
    maps: Sequence[ArrayLike],
    titles: Sequence[str],
    *,
    scale: Scale | None = None,
    columns: int = 6,
    colours: str = MAP_COLOURS,
    label: str = "anomaly",
    alt: str = "",
    width: float = 9.0,
) -> Figure:
    """Maps [H, W] side by side on one shared colour scale with one bar; `scale` fixes it, else all maps set it."""
    arrays = [np.asarray(m, dtype=float) for m in maps]
    low, high = (scale.low, scale.high) if scale else (min(a.min() for a in arrays), max(a.max() for a in arrays))
    figure, axes = grid(len(arrays), columns, width, titles)
    for axis, array in zip(axes, arrays, strict=False):
        drawn = axis.imshow(array, cmap=colours, vmin=low, vmax=high)
    figure.colorbar(drawn, ax=axes, label=label, fraction=0.025, pad=0.01)
    figure.set_label(alt or f"{len(arrays)} maps on one colour scale: {', '.join(titles)}")
    return figure


@lettered
def gallery(
    result: Result,
    images: ImageSet,
    detector: Detector,
    *,
    chosen: Sequence[int] | None = None,
    columns: int = 6,
    width: float = 9.0,
) -> Figure:
    """Image, true mask and anomaly map, one column per image, on the detector's scale; titles carry score and verdict.

    Without `chosen`, one normal image and then defects of every kind in turn are shown, of those whose maps were kept.
    """
    if chosen is None:
        kept = result.kept.tolist()
        chosen = [kept[k] for k in examples([result.samples[i] for i in kept], columns)]
    if not len(chosen):
        raise ValueError("no maps were kept to draw; evaluate(..., keep='all') or keep=[0, 5] keeps some")
    size = (width, width * 3.3 / len(chosen))
    figure, axes = plt.subplots(3, len(chosen), figsize=size, layout="constrained", squeeze=False)
    for column, i in zip(axes.T, chosen, strict=True):
        verdict = "anomalous" if detector.threshold.decide(result.scores[i : i + 1])[0] else "normal"
        scale = detector.scale
        drawn = _three(column, images[i]["image"], result.mask_of(i), result.map_of(i), scale.low, scale.high)
        column[0].set_title(name(result.defects[i]).replace("_", "\n"), fontsize=9)
        column[2].set_xlabel(f"{result.scores[i]:.3g}\n{verdict}", fontsize=8)
    for axis, row in zip(axes[:, 0], ("image", "truth", "anomaly map"), strict=True):
        axis.set_ylabel(row, fontsize=9)
    figure.colorbar(drawn, ax=axes[2].tolist(), label="anomaly", fraction=0.025, pad=0.01)
    kinds = ", ".join(dict.fromkeys(str(result.defects[i]) for i in chosen))
    figure.set_label(f"Images, true masks and anomaly maps on one colour scale for: {kinds}.")
    return figure


@lettered
def portrait(
    result: Result, images: ImageSet, detector: Detector, i: int, *, title: str = "anomaly map", width: float = 9.5
) -> Figure:
    """One image, its true mask, its map from black (normal) to bright, and where it stands (green) among all scores."""
    figure, axes = plt.subplots(1, 4, figsize=(width, width * 0.26), width_ratios=(1, 1, 1.2, 1.7))
    figure.set_layout_engine("constrained", w_pad=0.12)  # or the labels of the bar and of the histogram touch
    amap = detector.scale.apply(result.map_of(i))
    drawn = _three(axes, images[i]["image"], result.mask_of(i), amap, 0, 1)
    figure.colorbar(drawn, ax=axes[2], label="anomaly")
    kind = str(result.defects[i]).replace("_", " ")
    for axis, text in zip(axes, (kind, "truth", title), strict=False):
        axis.set_title(name(text), fontsize=9)
    score_histogram(result, detector.threshold, ax=axes[3])
    axes[3].axvline(result.scores[i], color=CHOSEN, linewidth=2)
    axes[3].legend(frameon=False, loc="upper center", fontsize=8)
    axes[3].margins(y=0.4)
    figure.set_label(f"Test image {i} ({kind}), truth, map and histogram of scores: {title}.")
    return figure


@lettered
def score_histogram(
    result: Result, threshold: Threshold | None = None, *, title: str = "", ax: Axes | None = None, width: float = 6.5
) -> Figure:
    """Image scores of normal and anomalous images, with the threshold that normal images set."""
    if ax is None:
        _, ax = plt.subplots(figsize=(width, width * 0.42), layout="constrained")
    figure = ax.figure
    assert isinstance(figure, Figure)
    edges = np.linspace(result.scores.min(), result.scores.max(), 25).tolist()
    for label, colour, kind in ((0, NORMAL, "normal"), (1, ANOMALOUS, "anomalous")):
        ax.hist(result.scores[result.labels == label], edges, color=colour, alpha=0.7, label=kind)
    if threshold:
        ax.axvline(threshold.value, color="black", linestyle="--", linewidth=1.2, label="threshold")
    ax.set(xlabel="image score", ylabel="images", title=name(title))
    ax.legend(frameon=False)
    figure.set_label(f"Histogram of image scores, normal against anomalous. {title}".strip())
    return figure


@lettered
def curves(
    lines: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    log: bool = False,
    log_x: bool = False,
    width: float = 6.5,
) -> Figure:
    """Lines by name, each (x, y), in one frame; `log` and `log_x` make its axes logarithmic."""
    figure, axis = plt.subplots(figsize=(width, width * 0.45), layout="constrained")
    for line, (x, y) in lines.items():
        axis.plot(x, y, label=name(line), linewidth=1.6)
    axis.set(xlabel=name(xlabel), ylabel=name(ylabel), title=name(title))
    axis.set(xscale="log" if log_x else "linear", yscale="log" if log else "linear")
    beside: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}  # many names would cover the lines
    axis.legend(frameon=False, **(beside if len(lines) > 3 else {}))
    axis.grid(alpha=0.25)
    figure.set_label(f"{title or ylabel} against {xlabel}: {', '.join(lines)}.")
    return figure


class LiveCurve:
    """Loss against step, redrawn while `fit` runs and left in the notebook: `fit(on_step=LiveCurve(300))`.

    Args:
        steps: Steps to expect, for the progress in the title.
        every: Seconds between two drawings.
        strides: Of the teacher's levels; lines are then called "stride 8", not `level_1`.
        width: Inches.
    """

    def __init__(self, steps: int, *, every: float = 1.0, strides: Sequence[int] = (), width: float = 6.5) -> None:
        self.steps, self.every, self.width = steps, every, width
        self.words = {f"level_{level}": f"stride {stride}" for level, stride in enumerate(strides)}
        self._drawn = time.perf_counter()
        self._handle: Any = None

    def __call__(self, history: History) -> None:
        done, now = len(history.rows), time.perf_counter()
        if done < self.steps and now - self._drawn <= self.every:
            return
        self._drawn = now
        names = [n for n in history.rows[-1] if n not in ("phase", "step")]
        lines = {}
        for n in names:  # a loss of the second phase begins where that phase does
            steps = [step for step, row in enumerate(history.rows, 1) if n in row]
            lines[self.words.get(n, n)] = steps, history.losses(n)
        title = f"step {done} of {self.steps}"
        figure = curves(lines, xlabel="step", ylabel="loss", title=title, log=True, log_x=True, width=self.width)
        self._display(figure)

    def _display(self, figure: Figure) -> None:
        from IPython.display import display

        data, metadata = bundle(figure)
        if self._handle is None:
            self._handle = display(data, raw=True, metadata=metadata, display_id=True)
        else:
            self._handle.update(data, raw=True, metadata=metadata)
        plt.close(figure)


def _three(axes: Any, image: ArrayLike, mask: ArrayLike, amap: ArrayLike, low: float, high: float) -> AxesImage:
    """Draws an image, its mask and its map into the first three axes; returns what a colour bar needs."""
    axes[0].imshow(picture(image))
    axes[1].imshow(mask, cmap="gray", vmin=0, vmax=1)
    for axis in axes[:3]:
        axis.set(xticks=[], yticks=[])
    drawn: AxesImage = axes[2].imshow(amap, cmap=MAP_COLOURS, vmin=low, vmax=high)
    return drawn
