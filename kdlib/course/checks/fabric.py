"""Checkers of notebook 09_fabric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlib.course.checks.answers import answered, first_match, numbers_right, verdict
from kdlib.methods.dbfad import DBFADConfig
from kdlib.scoring.result import Result


def undisturbed_guesses(answer: Mapping[int, int] | None) -> None:
    """Notebook 09: positions of a map of 8 x 8 whose four corners all lie inside, for gaps of 0, 1 and 2."""
    if not answered(answer):
        return
    true = {gap: (8 - 2 * (gap + 1)) ** 2 for gap in (0, 1, 2)}
    given = {str(gap): value for gap, value in (answer or {}).items()}
    hint = "a corner lies gap + 1 positions away in both directions: how many rows have it inside on both sides?"
    if numbers_right(given, {str(gap): count for gap, count in true.items()}, hint):
        print("right: at a gap of 1 three guesses of four read zeros from outside, and the map has only 64 positions")


def one_kernel(answer: Callable[[Sequence[Tensor]], tuple[Tensor, int, int] | None] | None) -> None:
    """Notebook 09: four corner weights [C, C, 1, 1] of a block with a gap of 1 as one convolution of 2 x 2."""
    generator = torch.Generator().manual_seed(0)
    weights, x = list(torch.randn(4, 3, 3, 1, 1, generator=generator)), torch.rand(1, 3, 9, 9, generator=generator)
    found = None if answer is None else answer(weights)
    if not answered(found):
        return
    kernel, dilation, padding = found
    if not isinstance(kernel, Tensor) or kernel.shape != (3, 3, 2, 2):
        print(f"not yet: expected a kernel (3, 3, 2, 2), found {tuple(getattr(kernel, 'shape', ())) or kernel}")
        return
    seen = F.conv2d(x, kernel, dilation=dilation, padding=padding).relu()
    if seen.shape != x.shape:
        print(f"not yet: the map becomes {tuple(seen.shape[2:])}; what is padded must make up for the kernel's reach")
        return
    if dilation != 4:
        print(f"not yet: with a dilation of {dilation} the taps are {dilation} apart; corners at -2 and +2 are not")
        return
    fault = first_match(seen, _kernel_cases(x, weights), "a weight is in the wrong place")
    print(f"not yet: {fault}" if fault else "right: for sub-kernels of one position the block is a dilated convolution")


def _kernel_cases(x: Tensor, weights: Sequence[Tensor]) -> dict[str, Tensor]:
    """Outputs for orders of the weights: the right one, and others."""

    def placed(order: Sequence[int]) -> Tensor:
        a, b, c, d = (weights[i] for i in order)
        kernel = torch.cat([torch.cat([a, b], 3), torch.cat([c, d], 3)], 2)
        return F.conv2d(x, kernel, dilation=4, padding=2).relu()

    return {
        "": placed((0, 2, 1, 3)),
        "rows and columns have changed places: the second corner is the lower left one": placed((0, 1, 2, 3)),
        "the kernel is turned over": placed((3, 1, 2, 0)),
    }


def fair_attention(answer: Callable[[Tensor, Tensor], Tensor | None] | None) -> None:
    """Notebook 09: attention over all positions that neither turning nor size changes, on the average."""
    a, logits = torch.rand(2, 2, 3, 4, 6, generator=torch.Generator().manual_seed(0)) + 0.1
    found = None if answer is None else answer(a, 3 * logits)
    if not answered(found):
        return
    if not isinstance(found, Tensor) or found.shape != a.shape:
        print(
            f"not yet: expected features like a, {tuple(a.shape)}, found {tuple(getattr(found, 'shape', ())) or found}"
        )
        return
    fault = first_match(found, _attention_cases(a, 3 * logits), "these are not features times a softmax of the logits")
    print(f"not yet: {fault}" if fault else "right: equal logits leave features alone, however large the image is")


def _attention_cases(a: Tensor, logits: Tensor) -> dict[str, Tensor]:
    """Features [B, C, h, w] times weights: the right ones, and others."""
    everywhere = torch.softmax(logits.flatten(2), 2).view_as(a)
    positions = a[0, 0].numel()
    return {
        "": positions * a * everywhere,
        "the weights sum to 1 over all positions, so equal logits divide by their number; undo that": a * everywhere,
        "this is the softmax over the width alone": a * torch.softmax(logits, 3),
        "over the width alone a turned image has other weights": a.shape[3] * a * torch.softmax(logits, 3),
        "this is a softmax over channels; it should be over positions": a * torch.softmax(logits, 1),
        "positions of all channels share one sum here; every channel has its own": positions
        * a
        * torch.softmax(logits.flatten(1), 1).view_as(a),
        "these are the weights alone; multiply features by them": positions * everywhere,
    }


def own_fabric_student(
    answer: Mapping[str, Any] | None, train: Callable[[Mapping[str, Any]], Result], to_beat: Result
) -> None:
    """Notebook 09: settings of DBFAD, for `train` to learn with and to beat the AUPRO of `to_beat`."""
    if not answered(answer) or answer is None:
        return
    names = {f.name for f in fields(DBFADConfig)}
    if unknown := sorted(set(answer) - names):
        print(f"not yet: dbfad has no setting '{unknown[0]}'; its own are described in kdlib/methods/dbfad.py")
    elif fixed := sorted(set(answer) & {"steps", "epochs", "batch_size"}):
        print(f"not yet: '{fixed[0]}' is fixed, so that the student to beat had as long to learn")
    else:
        verdict(train(answer), to_beat, "aupro")
