"""Checkers of notebook 08_efficientad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from kdlib import losses
from kdlib.course.checks.answers import answered, first_match, maps_judged
from kdlib.scoring.result import Result

_HARD = 0.9


def patch_sizes(answer: Sequence[int] | None) -> None:
    """Notebook 08: pixels in height and width that one position sees, behind each of PDN-S's six layers."""
    if not answered(answer):
        return
    true = (4, 5, 11, 13, 21, 33)
    if len(answer) != len(true):
        print(f"not yet: {len(answer)} numbers; expected six, one behind each convolution and each pooling")
        return
    for layer, (given, size) in enumerate(zip(answer, true, strict=True), 1):
        if given != size:
            print(
                f"not yet: {given} behind layer {layer}; a kernel of k adds k - 1 steps, and behind a pooling a step "
                "is twice as many pixels"
            )
            return
    print("right: 33 pixels; what lies further away cannot change what PDN says about a place")


def hard_loss(answer: Callable[..., Tensor | None] | None) -> None:
    """Notebook 08: the mean of the largest squared differences of each image."""
    generator = torch.Generator().manual_seed(0)
    t, s = torch.randn(2, 2, 4, 5, 10, generator=generator)
    s[1] = t[1] + 3 * (s[1] - t[1])  # the second image is the harder one
    found = None if answer is None else answer(t, s, _HARD)
    if not answered(found):
        return
    if not isinstance(found, Tensor) or found.dim():
        print(f"not yet: expected one number; found {getattr(found, 'shape', found)}")
        return
    squared = (t - s).square()
    cases = {
        "": losses.hard_features(t, s, _HARD),
        "that is the mean of all differences": squared.mean(),
        "every image has a quantile of its own; yours is the whole batch's": losses.hard_features(
            t, s, _HARD, over="batch"
        ),
        "those are the easy values; keep the large ones": torch.stack([_easy(image) for image in squared]).mean(),
        "the differences are not squared": _hardest((t - s).abs()).mean(),
        "that is a mean over channels first; the quantile is over channels and positions": _hardest(
            squared.mean(1, keepdim=True)
        ).mean(),
    }
    fault = first_match(found, cases, "the value is another one; take `quantile` of each image's squared differences")
    print(f"not yet: {fault}" if fault else "right: most of what the student already knows is left out of its loss")


def quantile_map(answer: Callable[..., Any] | None) -> None:
    """Notebook 08: maps brought to 0 at one quantile of normal maps and 0.1 at another."""
    rng = np.random.default_rng(0)
    normal, amap = torch.from_numpy(rng.gamma(2, 3, (6, 8, 8))), torch.from_numpy(rng.gamma(2, 5, (8, 8)))
    found = None if answer is None else answer(amap, normal, 0.9, 0.995)
    if not answered(found):
        return
    low, high = (torch.quantile(normal, q) for q in (0.9, 0.995))
    cases = {
        "": 0.1 * (amap - low) / (high - low),
        "the upper quantile should come to 0.1, yours comes to 1": (amap - low) / (high - low),
        "the lower quantile should come to 0": 0.1 * amap / high,
        "values below the lower quantile go below 0; do not cut them off": (
            0.1 * (amap - low) / (high - low)
        ).clamp_min(0),
    }
    fault = first_match(torch.as_tensor(found), cases, "a line through two points: which two?")
    print(
        f"not yet: {fault}" if fault else "right: now both maps speak one language, and a sum of them means something"
    )


def own_mix(answer: ArrayLike | None, to_beat: Result) -> None:
    """Notebook 08: the learner's maps [N, H, W] of the images of `to_beat`, whose AUPRO is the score to beat."""
    maps_judged(answer, to_beat, "aupro")


def _hardest(squared: Tensor) -> Tensor:
    flat = squared.flatten(1)
    return torch.stack([row[row >= row.quantile(_HARD)].mean() for row in flat])


def _easy(squared: Tensor) -> Tensor:
    flat = squared.flatten()
    return flat[flat < flat.quantile(_HARD)].mean()
