"""How good is a detector? Five numbers from sorted scores, none of which needs a threshold to be chosen.

    image scores [N], labels [N]           -> image_auroc, image_ap, image_f1max
    maps [N, H, W], masks [N, H, W]        -> pixel_auroc, pixel_ap, aupro

Higher scores mean more anomalous. Every function takes numpy arrays, returns plain floats and is exact: all distinct
scores are thresholds, ties included. Where a number is not defined (only one class, no defective pixel) it raises
`ValueError` and never returns NaN, so that no mean over categories is spoilt silently.

**AUPRO** (Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021). For a threshold t

    PRO(t) = mean over defect regions of  |region found at t| / |region|
    FPR(t) = share of all defect-free pixels of all images with a score above t

Regions are 8-connected. AUPRO is the area under PRO over FPR in [0, limit], divided by limit. Random scores give
limit / 2.

**Why it is fast.** A threshold that falls from the highest score to the lowest meets a few defect pixels and millions
of good ones. The curves bend only where a defect pixel is met; of the good pixels in between, only their number counts.
So the good scores are sorted once, two binary searches per distinct defect score count them, and scikit-learn sees one
weighted sample per stretch instead of one per pixel. For AUPRO alone, scores too low to matter stay unsorted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

Floats = NDArray[np.floating]
Counts = NDArray[np.int64]
Images = NDArray[Any] | Sequence[NDArray[Any]]
LIMIT = 0.3
EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)


def image_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """Metrics of one score per image.

    Args:
        scores: [N], higher is more anomalous, any unit.
        labels: [N], 0 or False for normal, 1 or True for anomalous; both must occur.

    Returns:
        image_auroc, image_ap (step-wise average precision), image_f1max (best F1 over all thresholds); each in [0, 1].

    Raises:
        ValueError: Other shapes or labels, NaN or infinite scores, only one class.
    """
    truth = _labels(labels)
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != truth.shape:
        raise ValueError(
            f"scores have shape {values.shape}, labels {truth.shape}; expected [N] for both: one per image"
        )
    _check_finite(values, "scores")
    precision, recall, _ = precision_recall_curve(truth, values)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return {
        "image_auroc": float(roc_auc_score(truth, values)),
        "image_ap": float(average_precision_score(truth, values)),
        "image_f1max": float(f1.max()),
    }


def chance(labels: ArrayLike) -> dict[str, float]:
    """What `image_metrics` gives for scores that carry no information (the same score for every image).

    Args:
        labels: [N], 0 normal, 1 anomalous; both must occur.

    Returns:
        The keys of `image_metrics`: 0.5 for AUROC, the anomalous share p for AP, 2p / (1 + p) for F1-max.

    Raises:
        ValueError: Labels other than 0 and 1, or only one class.
    """
    share = float(_labels(labels).mean())
    return {"image_auroc": 0.5, "image_ap": share, "image_f1max": 2 * share / (1 + share)}


def pixel_metrics(maps: Images, masks: Images) -> dict[str, float]:
    """Metrics of anomaly maps against masks, over all pixels of all images, normal images included.

    Args:
        maps: [N, H, W], or a sequence of [H, W] whose sizes may differ; higher is more anomalous.
        masks: The same shapes; True, or anything above 0, is defective.

    Returns:
        pixel_auroc, pixel_ap and aupro (up to a false-positive rate of 0.3), each in [0, 1].

    Raises:
        ValueError: Shapes that differ, blended mask values, NaN or infinite scores, no defective or no
            defect-free pixel.
    """
    pixels = _pixels(maps, masks)
    good, step = _sweep(pixels)
    found = np.bincount(step, minlength=good.size)
    truth, weight = np.repeat([False, True], good.size), np.concatenate([good, found])
    rank = np.tile(np.arange(good.size, 0, -1), 2)
    used = weight > 0
    truth, rank, weight = truth[used], rank[used], weight[used]
    return {
        "pixel_auroc": float(roc_auc_score(truth, rank, sample_weight=weight)),
        "pixel_ap": float(average_precision_score(truth, rank, sample_weight=weight)),
        "aupro": _area(*_curve(good, step, pixels.share, pixels.good.size, LIMIT)),
    }


def aupro(maps: Images, masks: Images, limit: float = LIMIT) -> float:
    """Area under the per-region overlap curve up to a false-positive rate of `limit`, divided by `limit`; in [0, 1].

    Maps, masks and errors are those of `pixel_metrics`; `limit` in (0, 1]. Random scores give limit / 2.
    """
    return _area(*pro_curve(maps, masks, limit))


def pro_curve(maps: Images, masks: Images, limit: float = LIMIT) -> tuple[Floats, Floats]:
    """The curve under which AUPRO is the area: every corner of it, so straight lines between the points are exact.

    Maps, masks and errors are those of `pixel_metrics`; `limit` in (0, 1].

    Returns:
        fpr [P] rising from 0 to `limit`, and pro [P], the mean share of a region that is found, rising from 0. Each
        distinct score of a defective pixel has two points: thin them out before drawing if there are many.
    """
    pixels = _pixels(maps, masks)
    top = _within(pixels, limit)
    return _curve(*_sweep(top), top.share, pixels.good.size, limit)


class _Pixels(NamedTuple):
    """All images' scores: good [G] defect-free, defect [D]; share [D] is what each defect pixel adds to PRO."""

    good: Floats
    defect: Floats
    share: Floats


def _pixels(maps: Images, masks: Images) -> _Pixels:
    if len(maps) != len(masks):
        raise ValueError(f"found {len(maps)} maps and {len(masks)} masks; expected one per map, all False where normal")
    good, defect, sizes = [], [], []
    for index, (scores, truth) in enumerate(zip(maps, masks, strict=True)):
        amap, mask = _checked(np.asarray(scores), np.asarray(truth), index)
        regions, count = ndimage.label(mask, EIGHT_NEIGHBOURS)
        good.append(amap[~mask])
        if count:
            defect.append(amap[mask])
            sizes.append(np.bincount(regions.ravel(), minlength=count + 1)[regions[mask]])
    if not defect:
        raise ValueError(f"found no defective pixel in {len(maps)} masks; expected some: add defective images")
    if not any(part.size for part in good):
        raise ValueError("found no defect-free pixel; expected some, for a false-positive rate: invert the masks?")
    share = 1 / np.concatenate(sizes)
    # The shares of one region's pixels sum to 1, so all of them sum to the number of regions.
    return _Pixels(np.concatenate(good), np.concatenate(defect), share / round(share.sum()))


def _within(pixels: _Pixels, limit: float) -> _Pixels:
    """Drop what a threshold meets only after the false-positive rate has passed `limit`; ties at the border stay."""
    if not 0 < limit <= 1:
        raise ValueError(f"limit is {limit}; expected a false-positive rate in (0, 1], usually 0.3")
    last = max(pixels.good.size - math.ceil(limit * pixels.good.size) - 1, 0)
    lowest = np.partition(pixels.good, last)[last]
    kept = pixels.defect >= lowest
    return _Pixels(pixels.good[pixels.good >= lowest], pixels.defect[kept], pixels.share[kept])


def _sweep(pixels: _Pixels) -> tuple[Counts, Counts]:
    """Let a threshold fall past all scores, in 2U + 1 steps for U distinct defect scores.

    Odd steps meet the defect pixels of one score and the good pixels tied with them, even steps the good ones between.

    Returns:
        How many good pixels each step meets [2U + 1], and the step that meets each defect pixel [D].
    """
    values, inverse = np.unique(pixels.defect, return_inverse=True)
    falling, ordered, total = values[::-1], np.sort(pixels.good), pixels.good.size
    above = total - np.searchsorted(ordered, falling, side="right")
    reached = total - np.searchsorted(ordered, falling, side="left")
    edges = np.concatenate([[0], np.column_stack([above, reached]).ravel(), [total]])
    return np.diff(edges), 2 * (values.size - 1 - inverse) + 1


def _curve(good: Counts, step: Counts, share: Floats, total: int, limit: float) -> tuple[Floats, Floats]:
    """Corners of the curve up to `limit`, from a sweep, each defect pixel's share and the number of good pixels."""
    fpr = np.concatenate([[0], np.cumsum(good)]) / total
    pro = np.concatenate([[0], np.cumsum(np.bincount(step, weights=share, minlength=good.size))])
    inside = fpr <= limit
    return np.append(fpr[inside], limit), np.append(pro[inside], np.interp(limit, fpr, pro))


def _area(fpr: Floats, pro: Floats) -> float:
    return float(auc(fpr, pro)) / float(fpr[-1])


def _checked(amap: NDArray[Any], mask: NDArray[Any], index: int) -> tuple[Floats, NDArray[np.bool_]]:
    if amap.ndim != 2 or amap.shape != mask.shape:
        raise ValueError(
            f"image {index}: the map has shape {amap.shape}, the mask {mask.shape}; expected the same [H, W] for both: "
            "drop a channel axis with maps[:, 0], resize the map to the mask"
        )
    if mask.dtype.kind == "f" and not np.isin(mask, (0, 1, 255)).all():
        raise ValueError(f"image {index}: found blended mask values; expected 0 and 1: resize masks with 'nearest'")
    # float32 keeps its type: the order is the same as in float64, and sorting takes half the time.
    scores = amap if amap.dtype in (np.float32, np.float64) else amap.astype(np.float64)
    _check_finite(scores, f"image {index}: scores of the map")
    return scores, mask > 0


def _labels(labels: ArrayLike) -> NDArray[np.bool_]:
    values = np.asarray(labels)
    if values.ndim != 1 or not np.isin(values, (0, 1)).all():
        found = f"shape {values.shape} and values {np.unique(values)[:5].tolist()}"
        raise ValueError(f"labels have {found}; expected [N] of 0 (normal) and 1 (anomalous): binarise them")
    truth = values.astype(bool)
    if truth.all() or not truth.any():
        found = f"{np.count_nonzero(truth)} anomalous among {truth.size} images"
        raise ValueError(f"found {found}; expected normal and anomalous ones: add the missing class to the test set")
    return truth


def _check_finite(values: Floats, name: str) -> None:
    broken = np.count_nonzero(~np.isfinite(values))
    if broken:
        found = f"{broken} of {values.size} are NaN or infinite"
        raise ValueError(f"{name}: {found}; expected finite numbers: check the images and lower the learning rate")
