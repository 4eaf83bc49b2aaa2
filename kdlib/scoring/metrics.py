"""How good is a detector? Six numbers from sorted scores, none of which needs a threshold to be chosen.

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
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from kdlib.scoring.pixel_counts import Floats, PixelCounts, Thresholds, check_finite

Images = NDArray[Any] | Sequence[NDArray[Any]]
LIMIT = 0.3


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
        raise ValueError(f"scores have shape {values.shape}, labels {truth.shape}; expected [N], one per image")
    check_finite(values, "scores")
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
    return counts_metrics(count(maps, masks))


def counts_metrics(counts: PixelCounts) -> dict[str, float]:
    """`pixel_metrics` of maps and masks that were counted one by one.

    Raises:
        ValueError: No defective or no defect-free pixel.
    """
    met, pairs, precision, area = 0, 0.0, 0.0, 0.0
    for block, fpr, pro in _corners(counts, LIMIT):
        hits = met + np.cumsum(block.pixels)
        met = int(hits[-1])
        # A defect pixel and a lower good one are a pair in the right order; where both are equal, half of one.
        pairs += float(np.dot(block.pixels, counts.good - (block.above + block.reached) / 2))
        precision += float(np.dot(block.pixels, hits / (hits + block.reached)))
        area += float(auc(fpr, pro))
    area += (LIMIT - float(fpr[-1])) * float(pro[-1])  # once every defect pixel is met
    return {
        "pixel_auroc": pairs / counts.defect / counts.good,
        "pixel_ap": precision / counts.defect,
        "aupro": area / LIMIT,
    }


def aupro(maps: Images, masks: Images, limit: float = LIMIT) -> float:
    """Area under the per-region overlap curve up to a false-positive rate of `limit`, divided by `limit`; in [0, 1].

    Maps, masks and errors are those of `pixel_metrics`; `limit` in (0, 1]. Random scores give limit / 2.
    """
    fpr, pro = pro_curve(maps, masks, limit)
    return float(auc(fpr, pro)) / limit


def pro_curve(maps: Images, masks: Images, limit: float = LIMIT) -> tuple[Floats, Floats]:
    """The curve under which AUPRO is the area: every corner of it, so straight lines between the points are exact.

    Maps, masks and errors are those of `pixel_metrics`; `limit` in (0, 1].

    Returns:
        fpr [P] rising from 0 to `limit`, and pro [P], the mean share of a region that is found, rising from 0. Each
        distinct score of a defective pixel has two points: thin them out before drawing if there are many.
    """
    if not 0 < limit <= 1:
        raise ValueError(f"limit is {limit}; expected a false-positive rate in (0, 1], usually 0.3")
    pieces = [(fpr, pro) for _, fpr, pro in _corners(count(maps, masks), limit)]
    fpr, pro = np.concatenate(pieces, axis=1)
    return np.append(fpr, limit), np.append(pro, pro[-1])


def _corners(counts: PixelCounts, limit: float) -> Iterator[tuple[Thresholds, Floats, Floats]]:
    """The curve under which AUPRO lies, one piece per block of thresholds; each starts where the last one ended.

    A threshold has two corners: before its defect pixels and the good ones tied with them, and after.
    """
    x = y = 0.0
    for block in counts.thresholds():
        after = y + np.cumsum(block.share)
        fpr = np.append(x, np.column_stack([block.above, block.reached]).ravel() / counts.good)
        pro = np.append(y, np.column_stack([np.append(y, after[:-1]), after]).ravel())
        inside = fpr <= limit
        if not inside.all():
            fpr, pro = np.append(fpr[inside], limit), np.append(pro[inside], np.interp(limit, fpr, pro))
        yield block, fpr, pro
        x, y = fpr[-1], pro[-1]


def count(maps: Images, masks: Images) -> PixelCounts:
    """Counts the pixels of maps and masks; shapes and errors are those of `pixel_metrics`."""
    if len(maps) != len(masks):
        raise ValueError(f"found {len(maps)} maps and {len(masks)} masks; expected one per map, all False where normal")
    counts = PixelCounts()
    for amap, mask in zip(maps, masks, strict=True):
        counts.add(amap, mask)
    return counts


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
