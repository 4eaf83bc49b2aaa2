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


def learning_choice(answer: Callable[[Tensor, Tensor], Tensor] | None) -> None:
    """Notebook 04: each image's gains, those of the predicted category, through which the predictor learns."""
    generator = torch.Generator().manual_seed(0)
    gains = torch.rand(3, 2, 4, 3, generator=generator).requires_grad_()
    logits = torch.randn(6, 3, generator=generator).requires_grad_()
    found = None if answer is None else answer(gains, logits)
    if not answered(found):
        return
    fault = _value_fault(found, gains, logits) or _gradient_fault(found, gains, logits)
    ending = "one mask goes forward, all of them tell the predictor what each would have changed"
    print(f"not yet: {fault}" if fault else f"right: {ending}")


def _value_fault(found: Tensor, gains: Tensor, logits: Tensor) -> str:
    """What is wrong with the values of gains [B, C, h, w // 2 + 1], chosen from `gains` [K, ...] by `logits` [B, K]."""
    expected = gains[logits.argmax(1)]
    if not isinstance(found, Tensor) or found.shape != expected.shape:
        return f"expected gains {tuple(expected.shape)}, one mask per image; found {getattr(found, 'shape', found)}"
    mixture = torch.einsum("bk,kchw->bchw", logits.softmax(1), gains)
    if torch.allclose(found, mixture, atol=1e-5):
        return "this is a mixture of all masks; what goes forward is one mask, that of the predicted category"
    if not torch.allclose(found, expected, atol=1e-5):
        return "these are not the gains of the category with the largest logit"
    return ""


def _gradient_fault(found: Tensor, gains: Tensor, logits: Tensor) -> str:
    """What is wrong with the gradients of gains that have the right values."""
    if not found.requires_grad:
        return "no gradient comes through, to masks or predictor"
    weight = torch.arange(found.numel(), dtype=torch.float32).view_as(found).cos()
    to_gains, to_logits = torch.autograd.grad((found * weight).sum(), (gains, logits), allow_unused=True)
    if to_logits is None or not to_logits.any():
        return "the values are right, but no gradient reaches the logits: an index has none, weights have one"
    worth = torch.einsum("bchw,kchw->bk", weight, gains.detach())  # what the loss would be with each mask alone
    p, over_batch = logits.detach().softmax(1), logits.detach().softmax(0)
    if torch.allclose(to_logits, over_batch * (worth - (over_batch * worth).sum(0)), atol=1e-4):
        return "the softmax is over the images; the categories of one image add up to 1"
    if torch.allclose(to_logits, worth, atol=1e-4):
        return "the logits themselves are the weights; use their softmax"
    if not torch.allclose(to_logits, p * (worth - (p * worth).sum(1, keepdim=True)), atol=1e-4):
        return "the logits' gradient is not that of a mixture of the masks, weighted by the softmax"
    mine = torch.zeros_like(gains).index_add(0, logits.argmax(1), weight)
    if to_gains is None or not torch.allclose(to_gains, mine, atol=1e-4):
        return "the predictor learns well; a mask, though, should learn from the images that use it alone"
    return ""


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
