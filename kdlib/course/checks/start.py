"""Checkers of notebook 00_start_here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from kdlib.course.checks.answers import answered, maps_judged
from kdlib.scoring import metrics
from kdlib.scoring.result import Result


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


def nearest_distance(answer: Callable[[Tensor, Tensor], Tensor] | None) -> None:
    """Notebook 00: the distance from each feature [C, h, w] to the nearest one of a memory [M, C]."""
    if not answered(answer):
        return
    generator = torch.Generator().manual_seed(0)
    memory, t = torch.rand(50, 3, generator=generator), torch.rand(3, 4, 6, generator=generator)
    found = answer(memory, t)
    if not isinstance(found, Tensor) or found.shape != (4, 6):
        print(f"not yet: expected a tensor [h, w], here (4, 6), found {getattr(found, 'shape', found)}")
        return
    flat = t.flatten(1).T
    distances = torch.cdist(flat, memory)
    cosines = 1 - F.normalize(flat, dim=1) @ F.normalize(memory, dim=1).T
    near = {
        "the distances are squared: take the root": distances.square().amin(1),
        "this is the mean distance; what matters is the nearest patch alone": distances.mean(1),
        "this is the farthest patch": distances.amax(1),
        "this is one minus a cosine; here the lengths count too": cosines.amin(1),
        "positions are mixed up: [C, h, w] becomes [h * w, C] by flatten(1).T": torch.cdist(
            t.reshape(-1, 3), memory
        ).amin(1),
        "": distances.amin(1),
    }
    for hint, wrong in near.items():
        if torch.allclose(found.float(), wrong.view(4, 6), atol=1e-4):
            print(
                f"not yet: {hint}" if hint else "right: this is `nearest`, but for its 3 x 3 smoothing of the features"
            )
            return
    error = float((found - distances.amin(1).view(4, 6)).abs().max())
    print(f"not yet: off by up to {error:.2f}; for each position, form all distances to the memory, and keep the least")


def own_maps(answer: ArrayLike | None, to_beat: Result, metric: str = "image_auroc") -> None:
    """Notebooks 00 to 02: the learner's maps [N, H, W] of the images of `to_beat`, whose metric is to be beaten."""
    maps_judged(answer, to_beat, metric)


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
