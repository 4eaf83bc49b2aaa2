"""Checkers of notebook 07_rdpp."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil
from typing import Any

import torch
from torch import Tensor

from kdlib.course.checks.answers import answered, first_match, numbers_right, verdict
from kdlib.layers.sinkhorn import sinkhorn_divergence
from kdlib.methods import configure
from kdlib.methods.rdpp import contrast_loss
from kdlib.scoring.result import Result

_MAY_CHANGE = (
    "projection_weight",
    "reconstruct",
    "contrast",
    "contrast_margin",
    "lr_projection",
    "noise_strength",
    "patch",
    "ssot",
    "mining",
)


def accumulated_steps(answer: Mapping[int, int] | None) -> None:
    """Notebook 07: optimiser steps per epoch for so many images, batches of 16, a step after every second batch."""
    if not answered(answer):
        return
    true = {str(images): float(ceil(images / 16) // 2) for images in (60, 209, 280)}
    hint = "the last batch may be smaller and still counts; a batch without a partner takes no step"
    if numbers_right({str(images): steps for images, steps in answer.items()}, true, hint):
        print(
            "right: 60 images are 2 steps per epoch, so one number of epochs means very different lengths of training"
        )


def pushed_apart(answer: Callable[..., Tensor | None] | None) -> None:
    """Notebook 07: the contrast loss, zero below its margin."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(6, 4, 5, 3, generator=generator)
    share = torch.tensor([2.0, 1.0, 0.7, 0.2, 0.0, -1.0]).view(6, 1, 1, 1)
    noisy = (torch.randn(6, 4, 5, 3, generator=generator) + share * normal).requires_grad_()
    found = None if answer is None else answer(noisy, normal)
    if not answered(found):
        return
    if not isinstance(found, Tensor) or found.shape != ():
        print(f"not yet: expected one number as a tensor; found {getattr(found, 'shape', found)}")
        return
    cosine = torch.cosine_similarity(noisy.flatten(1), normal.flatten(1))
    place = torch.cosine_similarity(noisy, normal, dim=1)
    cases = {
        "": contrast_loss(noisy, normal),
        "this is the sum over images; take the mean": 6 * contrast_loss(noisy, normal),
        "below the margin nothing is left to push: cut off at 0": (cosine - 0.5).mean(),
        "cut off each image's own excess, then take the mean": (cosine.mean() - 0.5).clamp_min(0),
        "here whole maps are one vector per image, not one per position": (place - 0.5).clamp_min(0).mean(),
        "the cosine must become small: this pulls the two together": (0.5 - cosine).clamp_min(0).mean(),
    }
    fault = first_match(found, cases, "wrong values; per image: cosine of the whole maps, minus 0.5, not below 0")
    if not fault and not found.requires_grad:
        fault = "no gradient comes through; do not detach"
    print(f"not yet: {fault}" if fault else "right: and images below the margin get no gradient at all")


def sorted_transport(answer: Callable[..., Any] | None) -> None:
    """Notebook 07: optimal transport on a line, which needs no Sinkhorn."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 9, 1, generator=generator, dtype=torch.float64)
    x = 2 * x + 1
    found = None if answer is None else answer(x[:, 0], y[:, 0])
    if not answered(found):
        return
    a, b = x[:, 0].sort().values, y[:, 0].sort().values
    true = (a - b).square().mean() / 2
    cases = {
        "": true,
        "the points are still matched in the order in which they come": (x - y).square().mean() / 2,
        "the cost is half the squared distance": 2 * true,
        "this is the distance, not half its square": (a - b).abs().mean(),
        "every point weighs 1/n: the mean, not the sum": 9 * true,
    }
    fault = first_match(torch.as_tensor(found), cases, "wrong value; which point goes where if no two paths may cross?")
    if fault:
        print(f"not yet: {fault}")
        return
    blurred = float(sinkhorn_divergence(x, y, diameter=10.0, blur=0.02, rounds=1000))
    print(f"right: {float(true):.3f}, and Sinkhorn with little blur finds {blurred:.3f}")


def own_defects(
    answer: Mapping[str, Any] | None, train: Callable[[Mapping[str, Any]], Result], to_beat: Result
) -> None:
    """Notebook 07: other noise or other weights, for `train` to learn with and to beat the AUPRO of `to_beat`."""
    if not answered(answer):
        return
    if unknown := sorted(set(answer) - set(_MAY_CHANGE)):
        print(f"not yet: '{unknown[0]}' is not among what may be changed: {', '.join(_MAY_CHANGE)}")
        return
    try:
        configure("rdpp", **answer)
    except ValueError as error:
        print(f"not yet: {error}")
        return
    verdict(train(answer), to_beat, "aupro")
