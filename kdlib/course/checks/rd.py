"""Checkers of notebook 02_reverse_distillation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdlib import losses
from kdlib.course.checks.answers import answered


def opposite_losses(answer: Mapping[str, Any] | None) -> None:
    """Notebook 02: features of two positions that only the global cosine tells apart."""
    if not answered(answer):
        return
    t, s = (np.asarray(answer.get(name), dtype=float) for name in ("teacher", "student"))
    if t.shape != (2, 2) or s.shape != (2, 2) or min(np.linalg.norm([*t, *s], axis=1)) == 0:
        print("not yet: expected two positions of two channels each for teacher and student, no vector of length 0")
        return
    pair = [torch.from_numpy(f.T.reshape(1, 2, 1, 2)) for f in (t, s)]
    whole, each = float(losses.global_cosine(*pair)), float(losses.per_position_cosine(*pair))
    values = f"global {whole:.3f}, per position {each:.3f}"
    if each > 0.01:
        print(f"not yet: {values}; a cosine per position is blind to lengths only: keep every direction as it is")
    elif whole < 0.4:
        print(f"not yet: {values}; make the teacher long where the student is short, and the other way round")
    else:
        print(f"right: {values}: the global loss also compares how long the vectors of different positions are")


def hard_mining(answer: Callable[..., Tensor | None] | None) -> None:
    """Notebook 02: features whose gradients are shrunk where they are restored well."""
    generator = torch.Generator().manual_seed(0)
    t, noise = torch.randn(2, 2, 6, 4, 5, generator=generator)
    s = (t + noise * torch.tensor([0.5, 2.0]).view(2, 1, 1, 1)).requires_grad_()  # the second image is the harder one
    found = None if answer is None else answer(t, s, 0.6)
    if not answered(found):
        return
    if not isinstance(found, Tensor) or found.shape != s.shape:
        print(f"not yet: expected a tensor like s, {tuple(s.shape)}; found {getattr(found, 'shape', found)}")
    elif not torch.allclose(found, s, atol=1e-5):
        print("not yet: the values have changed; the loss must not notice, only its gradient: add what you subtract")
    elif not found.requires_grad:
        print("not yet: no gradient comes through; detach a part of s, not all of it")
    else:
        (gradient,) = torch.autograd.grad(found.sum(), s)
        fault = _mining_fault(gradient, losses.cosine_distance(t, s.detach()))
        print(
            f"not yet: {fault}" if fault else "right: same loss, and a gradient that works where the student is worst"
        )


def _mining_fault(gradient: Tensor, distance: Tensor, easy: float = 0.6, factor: float = 0.1) -> str:
    """What is wrong with gradients [B, C, h, w] that should be `factor` at the smallest distances [B, h, w], else 1."""
    if not torch.allclose(gradient, gradient[:, :1].expand_as(gradient), atol=1e-5):
        return "channels of one position differ; a position has one distance, and one factor for all channels"
    share = gradient[:, 0]
    easiest = distance <= distance.flatten().kthvalue(round(easy * distance.numel())).values
    each = torch.stack([d <= d.flatten().kthvalue(round(easy * d.numel())).values for d in distance])
    cases = {
        "all gradients are as before": torch.ones_like(share),
        "all gradients have shrunk": torch.full_like(share, factor),
        "the hard positions have shrunk, it should be the easy ones": torch.where(easiest, 1.0, factor),
        "`easy` is a share of all positions of the batch, not of each image": torch.where(each, factor, 1.0),
        "the easy gradients are gone; multiply them by `factor`": torch.where(easiest, 0.0, 1.0),
        "": torch.where(easiest, factor, 1.0),
    }
    for fault, expected in cases.items():
        if torch.allclose(share, expected, atol=1e-4):
            return fault
    shrunk = float((share < 0.99).float().mean())
    return f"{shrunk:.0%} of the positions have shrunk, expected {easy:.0%}, to {factor:g} of what they were"
