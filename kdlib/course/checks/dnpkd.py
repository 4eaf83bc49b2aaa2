"""Checkers of notebook 04_dnpkd."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from kdlib.contract import Distiller
from kdlib.course.checks.answers import answered, beats
from kdlib.data.records import ImageSet
from kdlib.layers.frequency_mask import filtered
from kdlib.scoring.result import Result


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


def open_share(answer: Callable[[Tensor, int], Tensor] | None) -> None:
    """Notebook 04: how open masks are, whatever a common factor: (sum of gains)^2 / (count * sum of squares)."""
    found = None if answer is None else answer(torch.full((2, 3, 4, 4), 0.5), 6)
    if not answered(found):
        return
    if not isinstance(found, Tensor) or found.shape != (2,):
        print(f"not yet: expected one share per image, shape (2,); found {getattr(found, 'shape', found)}")
        return
    generator = torch.Generator().manual_seed(0)
    for width in (6, 5):
        gains = torch.rand(2, 3, 4, width // 2 + 1, generator=generator).square()
        if fault := _share_fault(answer, gains, width):
            print(f"not yet: {fault}")
            return
    print(f"right: masks that halve everything are open to {float(found[0]):.0%}: only differences close a mask")


def _share_fault(answer: Any, gains: Tensor, width: int) -> str:
    """What is wrong with the shares of gains [B, C, h, w // 2 + 1]."""
    found, full = answer(gains, width), _whole(gains, width)
    if torch.allclose(found, _open(full), atol=1e-5):
        return ""
    where = f"width {width}: "
    if not torch.allclose(answer(gains / 2, width), found, atol=1e-5):
        return f"{where}half the gains give another share, so a common factor still counts: divide by the squares"
    every = torch.cat([gains, gains[..., 1:]], -1)
    cases = {
        "every column counts once; which of them stand for two frequencies?": _open(gains),
        "all columns but the first count twice; the last one of an even width is its own opposite": _open(every),
        "this is the number of open frequencies; divide by how many there are": _open(full) * full[0].numel(),
        "this is one over the share": 1 / _open(full),
        "this is the root of the share": _open(full).sqrt(),
    }
    for fault, wrong in cases.items():
        if torch.allclose(found, wrong, atol=1e-4):
            return where + fault
    return (
        f"{where}{found[0]:.3f}, expected {float(_open(full)[0]):.3f}; count, sum and squares run over the same gains"
    )


def _whole(gains: Tensor, width: int) -> Tensor:
    """Gains [B, C, h, w] of the full spectrum, of which a half is given: opposite frequencies have equal gains."""
    missing = gains[..., 1 : (width + 1) // 2].flip(-1)
    opposite = missing.flip(-2).roll(1, -2)  # row i comes from row -i mod h
    return torch.cat([gains, opposite], -1)


def _open(gains: Tensor) -> Tensor:
    flat = gains.flatten(1)
    return flat.sum(1).square() / (flat.shape[1] * flat.square().sum(1))


def own_masks(answer: Distiller | None, sets: Mapping[str, ImageSet], to_beat: Mapping[str, Result], most: int) -> None:
    """Notebook 04: a DNP-KD that started from the learner's masks, trained for no more than `most` steps."""
    if not answered(answer):
        return
    if answer.name != "dnpkd":
        print(f"not yet: the method is {answer.name}; expected dnpkd, of which only the masks' start is yours")
        return
    beats(answer, sets, to_beat, most)
