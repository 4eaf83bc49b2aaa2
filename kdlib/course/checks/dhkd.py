"""Checkers of notebook 05_dhkd."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn import functional as F

from kdlib.course.checks.answers import answered, first_match, maps_judged, numbers_right
from kdlib.scoring.result import Result


def flow_bounds(answer: Mapping[str, float] | None) -> None:
    """Notebook 05: the largest log-scale of a channel in one coupling, and in four double blocks."""
    if not answered(answer):
        return
    one = 0.636 * 1.9 * np.pi / 2
    true = {"one coupling": one, "four blocks": 4 * one}
    if numbers_right(answer, true, "how large can an arctangent be, and how do logs combine?", relative=0.02):
        print("right: bounded, but e to that power is a factor of about 2,000 per channel: room for learning by heart")


def single_coupling(answer: Callable[..., Any] | None) -> None:
    """Notebook 05: an affine coupling that changes the second half of the channels, forwards and backwards."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 4, 2, 3, generator=generator), torch.randn(4, 2, 1, 1, generator=generator)

    def subnet(half: Tensor) -> tuple[Tensor, Tensor]:
        s, t = F.conv2d(half, weight).chunk(2, 1)
        return torch.atan(s), t

    found = None if answer is None else answer(x, subnet)
    if not answered(found) or answer is None:
        return
    parts = subnet(x[:, :2])
    fault = (
        _forward_fault(found, x, *parts)
        or _volume_fault(found[1], x, lambda v: answer(v, subnet)[0])
        or _backward_fault(answer(found[0], subnet, reverse=True), found, x, *parts)
    )
    print(f"not yet: {fault}" if fault else "right: it can be undone, and autograd finds the same volume")


def _forward_fault(found: Any, x: Tensor, s: Tensor, t: Tensor) -> str:
    """What is wrong with the values of a coupling of x [B, C, h, w], whose log-scales and shifts are s and t."""
    if not isinstance(found, tuple) or len(found) != 2 or getattr(found[0], "shape", None) != x.shape:
        return f"expected a pair: y like x, {tuple(x.shape)}, and log-determinants"
    x1, x2 = x.chunk(2, 1)
    if found[0][:, :2].equal(x2) or not torch.allclose(found[0][:, :2], x1):
        return "the first half has changed; it must stay, for the way back asks the subnet about it"
    cases = {
        "": s.exp() * x2 + t,
        "nothing has changed": x2,
        "the log-scale is not used; a shift alone leaves every volume as it is": x2 + t,
        "the shift is not used": s.exp() * x2,
        "this scales by s; s is the logarithm of the scale": s * x2 + t,
        "this divides by the scale": (-s).exp() * x2 + t,
        "this scales the shift too; scale first": s.exp() * (x2 + t),
    }
    return first_match(found[0][:, 2:], cases, "the second half should be its scale times x2, plus the shift")


def _volume_fault(log_det: Any, x: Tensor, forward: Callable[[Tensor], Tensor]) -> str:
    """What is wrong with log-determinants [B, h, w]; autograd's Jacobian of every position is the judge."""
    images, channels, h, w = x.shape
    size = tuple(getattr(log_det, "shape", ()))
    if size != (images, h, w):
        return f"expected one log-determinant per position, {(images, h, w)}, found {size}; sum over channels only"
    jacobian = torch.autograd.functional.jacobian(forward, x)
    blocks = torch.stack([jacobian[b, :, i, j, b, :, i, j] for b, i, j in np.ndindex(images, h, w)])
    true = torch.linalg.slogdet(blocks).logabsdet.view(images, h, w)
    cases = {
        "": true,
        "the log-determinant has the wrong sign": -true,
        "this is the determinant, not its logarithm": true.exp(),
        "this is the mean of the log-scales; logarithms of factors add up": true / (channels // 2),
        "the log-determinant is 0, as if no volume had changed": torch.zeros_like(true),
    }
    error = float((log_det - true).abs().max())
    return first_match(log_det, cases, f"the log-determinant is off by up to {error:.2f} from the Jacobian's")


def _backward_fault(back: Any, found: tuple[Tensor, Tensor], x: Tensor, s: Tensor, t: Tensor) -> str:
    """What is wrong with the way back from y, which `found` holds with its log-determinants."""
    if not isinstance(back, tuple) or len(back) != 2 or getattr(back[0], "shape", None) != x.shape:
        return "forwards is right; with reverse=True, expected a pair again: x, and log-determinants of the way back"
    y2 = found[0][:, 2:]
    cases = {
        "": x[:, 2:],
        "forwards is right; `reverse` changes nothing yet": s.exp() * y2 + t,
        "forwards is right; backwards, y comes out as it was": y2,
        "forwards is right; backwards, undo the shift first, as it came last": (-s).exp() * y2 - t,
    }
    error = float((back[0] - x).abs().max())
    otherwise = f"forwards is right; the way back misses x by up to {error:.2f}"
    fault = first_match(back[0][:, 2:], cases, otherwise)
    if fault or not torch.allclose(back[0], x, atol=1e-5):
        return fault or otherwise
    right = getattr(back[1], "shape", None) == found[1].shape and torch.allclose(back[1], -found[1], atol=1e-5)
    return "" if right else "x comes back; its log-determinant should be minus that of the way there"


def denoising_loss(answer: Callable[..., Tensor | None] | None) -> None:
    """Notebook 05: the loss of a student that sees noise, whose teacher does not."""
    f = 3 * torch.randn(16, 8, 12, 12, generator=torch.Generator().manual_seed(0))
    teacher, student = _Spy(), _Spy()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # not the seed of f, or the noise would be f once more
        given = f.clone()
        found = None if answer is None else answer(teacher, student, given, 0.5)
    if not answered(found):
        return
    if not isinstance(found, Tensor) or found.shape != ():
        fault = f"expected one number, a scalar tensor; found {tuple(getattr(found, 'shape', ())) or found}"
    elif not given.equal(f):
        fault = "f itself has changed: `f += noise` writes into the features that the teacher gets"
    else:
        fault = _sight_fault(teacher, student, f, 0.5) or _learning_fault(found, teacher, student)
    print(
        f"not yet: {fault}" if fault else "right: the target stays clean, so the student has to remove what was added"
    )


class _Spy(torch.nn.Module):
    """A network of one weight that remembers what it was asked and what it said."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.7))
        self.seen = self.said = torch.empty(0)

    def forward(self, f: Tensor) -> Tensor:
        said = self.weight * f
        self.seen, self.said = f.detach().clone(), said.detach()
        return said


def _sight_fault(teacher: _Spy, student: _Spy, f: Tensor, strength: float) -> str:
    """What is wrong with what teacher and student have seen of features f [B, C, h, w]."""
    if not teacher.seen.equal(f):
        return "the teacher should be asked about f as it is: its latents of clean features are the target"
    if student.seen.shape != f.shape or student.seen.equal(f):
        return "the student should see f with noise; without, there is nothing to remove"
    noise = student.seen - f
    for dim, name in enumerate(("images", "channels", "rows", "columns")):
        if torch.allclose(noise, noise.narrow(dim, 0, 1).expand_as(noise), atol=1e-5):
            return f"all {name} share one noise; draw a number for every entry of f"
    mean, deviation = float(noise.mean()), float(noise.std())
    if abs(mean) > 0.1 * strength:
        return f"the noise has the mean {mean:.2f} and shifts all features; expected 0"
    if abs(deviation - strength) > 0.1 * strength:
        return f"the noise has the standard deviation {deviation:.2f}, expected the strength, {strength:g}"
    return ""


def _learning_fault(found: Tensor, teacher: _Spy, student: _Spy) -> str:
    """What is wrong with a loss and its gradients, once both networks have seen what they should."""
    if found.requires_grad:
        found.backward()
    if student.weight.grad is None:
        return "no gradient reaches the student"
    if teacher.weight.grad is not None:
        return "a gradient reaches the teacher, which would learn to be easy to copy; ask it under torch.no_grad()"
    difference = teacher.said - student.said
    cases = {
        "": difference.square().mean(),
        "this is the sum; the mean does not depend on the size of the batch": difference.square().sum(),
        "this is the root of the mean square": difference.square().mean().sqrt(),
        "these are absolute differences; square them": difference.abs().mean(),
        "these are squares summed over channels; take the mean over them, too": difference.square().sum(1).mean(),
    }
    return first_match(
        found,
        cases,
        f"the loss is {float(found.detach()):.4f}, the mean square {float(difference.square().mean()):.4f}",
    )


def own_latent_maps(answer: ArrayLike | None, to_beat: Result) -> None:
    """Notebook 05: the learner's maps [N, H, W] of the images of `to_beat`, whose AUPRO is the score to beat."""
    maps_judged(answer, to_beat, "aupro")


def printed_means(answer: Sequence[str] | None, columns: Mapping[str, Sequence[float]]) -> None:
    """Notebook 05: the columns of a table whose mean is not the average that is printed as their last number."""
    if not answered(answer):
        return
    true = {name for name, (*each, printed) in columns.items() if abs(np.mean(each) - printed) > 0.05}
    if unknown := sorted(set(answer) - set(columns)):
        print(f"not yet: there are no columns {unknown}")
    elif wrong := sorted(set(answer) - true):
        print(f"not yet: {wrong[0]} agrees with its printed average")
    elif left := true - set(answer):
        print(f"not yet: these are right, and {len(left)} more do not agree")
    else:
        print(f"right: {len(true)} of {len(columns)} averages cannot be recomputed from the rows above them")
