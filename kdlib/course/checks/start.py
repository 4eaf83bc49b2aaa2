"""Checkers of notebook 00_start_here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kdlib.course.checks.answers import answered, numbers_right
from kdlib.scoring import metrics


def auroc_by_hand(answer: float | None) -> None:
    """Notebook 00: the AUROC of three normal and three anomalous images."""
    if not answered(answer):
        return
    scores, labels = [0.1, 0.35, 0.4, 0.3, 0.4, 0.8], [0, 0, 0, 1, 1, 1]
    true = metrics.image_metrics(scores, labels)["image_auroc"]
    if abs(float(answer) - true) > 0.005:
        print(f"not yet: {float(answer):.3f}; form all nine pairs; a tie counts one half; divide the wins by nine")
    else:
        print(f"right: {true:.3f} is the chance that a random defective image scores higher than a random normal one")


def ap_by_chance(answer: Mapping[str, float] | None) -> None:
    """Notebook 00: average precision of an uninformed detector on three VisA categories."""
    if not answered(answer):
        return
    counts = {"candle": (100, 100), "cashew": (50, 100), "pcb3": (101, 100)}
    true = {name: metrics.chance([0] * normal + [1] * bad)["image_ap"] for name, (normal, bad) in counts.items()}
    if numbers_right(answer, true, "of all images called anomalous, what share is?", absolute=0.001):
        print("right: the chance level of AP is a property of the test set, so APs of two test sets cannot be compared")


def sampled_aupro(answer: Callable[[Any, Any], float] | None) -> None:
    """Notebook 00: AUPRO from 200 evenly spaced thresholds, and what a harmless rescaling does to it."""
    if not answered(answer):
        return
    rng, masks = np.random.default_rng(0), np.zeros((8, 48, 48), dtype=bool)
    masks[:4, 8:20, 8:20] = masks[:4, 30:34, 30:40] = True
    s = rng.normal(0, 1, masks.shape) + 1.2 * masks
    exact = [metrics.aupro(m, masks) for m in (s, np.exp(5 * s))]
    given = [float(answer(m, masks)) for m in (s, np.exp(5 * s))]
    values = (
        f"yours {given[0]:.3f} and {given[1]:.3f}, exact {exact[0]:.3f} and {exact[1]:.3f} before and after exp(5 s)"
    )
    if abs(given[0] - exact[0]) > 0.02:
        print(f"not yet: {values}; before, the two should nearly agree: is the area divided by 0.3, are regions equal?")
    elif abs(given[0] - given[1]) < 0.02:
        print(f"not yet: {values}; are your thresholds evenly spaced between the lowest and the highest score?")
    else:
        print(f"right: {values}: the order of the pixels is the same, only the sampling has changed")


def harmless_rescalings(answer: Mapping[str, bool] | None) -> None:
    """Notebook 00: which rescalings of anomaly maps leave image AUROC and AUPRO as they are."""
    if not answered(answer):
        return
    rng, masks = np.random.default_rng(0), np.zeros((12, 16, 16), dtype=bool)
    masks[6:, 4:9, 4:9] = True
    s = rng.random(masks.shape) * rng.uniform(1, 2, (12, 1, 1)) + masks
    low, high = s.min((1, 2), keepdims=True), s.max((1, 2), keepdims=True)
    rescaled = {"exp": np.exp(5 * s), "data set": (s - s.min()) / np.ptp(s), "image": (s - low) / (high - low)}
    before = _image_and_region(s, masks)
    for name, maps in rescaled.items():
        after = _image_and_region(maps, masks)
        if answer.get(name) is not bool(np.allclose(before, after, atol=1e-6)):
            print(f"not yet: '{name}'; can it change which of two pixels, of different images, scores higher?")
            return
    print(f"right: per image, the image AUROC falls from {before[0]:.2f} to {after[0]:.2f}: every maximum becomes 1")


def _image_and_region(maps: Any, masks: Any) -> tuple[float, float]:
    scores, labels = maps.max((1, 2)), masks.any((1, 2)).astype(int)
    return metrics.image_metrics(scores, labels)["image_auroc"], metrics.aupro(maps, masks)
