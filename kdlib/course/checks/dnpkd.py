"""Checkers of notebook 04_dnpkd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from kdlib.course.checks.answers import answered, numbers_right
from kdlib.layers.frequency_mask import filtered

_NUMBERS_AT_256 = 256 * 64 * 64 + 512 * 32 * 32 + 1024 * 16 * 16
"""Features of one image of 256 px at the three levels of a wide_resnet50_2."""


def even_part(answer: Callable[[Any], Any] | None) -> None:
    """Notebook 04: what is left of features when their spectrum loses its imaginary part, without a transform."""
    if not answered(answer):
        return
    x = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    open_gains = torch.ones(2, 3, 24, 13)
    true, given = filtered(x, open_gains, "real_only"), torch.as_tensor(answer(x))
    if given.shape != x.shape:
        print(f"not yet: expected shape {tuple(x.shape)}, as that of x; found {tuple(given.shape)}")
    elif torch.allclose(given, (x + x.flip(-2, -1)) / 2, atol=1e-5):
        print("not yet: nearly; index 0 is its own reflection, 1 goes to h - 1: what does flip do to index 0?")
    elif not torch.allclose(given, true, atol=1e-5):
        print(f"not yet: largest error {float((given - true).abs().max()):.2f}; which waves have a real spectrum?")
    else:
        twice = float((filtered(true, open_gains, "real_only") - true).abs().max())
        share = float(true.square().sum() / x.square().sum())
        print(f"right: {share:.0%} of white noise's energy is left, and a second pass changes nothing ({twice:.0e})")


def sparsity_at_start(answer: Mapping[str, float] | None) -> None:
    """Notebook 04: the sparsity term of DNP-KD's code at step 0, for two batch sizes and for more categories."""
    if not answered(answer):
        return
    each = 1e-6 * 0.5 * _NUMBERS_AT_256
    true = {"batch of 8": 8 * each, "batch of 16": 16 * each, "batch of 8, 100 categories": 8 * each}
    if numbers_right(answer, true, "gains of 0.5, one for each number of t1, t2 and t3", relative=0.01):
        print(
            "right: the cosine's three levels are at most 3 for features after a ReLU, so the masks are louder at first"
        )
