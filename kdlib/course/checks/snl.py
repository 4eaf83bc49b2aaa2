"""Checkers of notebook 06_snl."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from kdlib import losses
from kdlib.course.checks.answers import answered, first_match, verdict
from kdlib.scoring.result import Result


def blind_spots(answer: Mapping[str, Sequence[str]] | None) -> None:
    """Notebook 06: the losses that stay at zero for three students that differ from their teacher."""
    if not answered(answer):
        return
    t = torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    students = {
        "negated": -t,
        "longer": t * (1 + torch.arange(25).view(5, 5) / 5),
        "every second image negated": t * torch.tensor([1, -1, 1, -1]).view(4, 1, 1, 1),
    }
    named = {
        "spatial": losses.per_position_cosine,
        "channel": losses.channel_kl,
        "intra": losses.intra_affinity,
        "inter": losses.inter_affinity,
    }
    for name, s in students.items():
        true = {key for key, distance in named.items() if float(distance(t, s)) < 1e-6}
        given = set(answer.get(name, ()))
        if wrong := sorted(given - true):
            print(f"not yet: '{wrong[0]}' is not zero for '{name}'")
            return
        if given != true:
            print(f"not yet: all that you name is right for '{name}', and {len(true - given)} more stay at zero")
            return
    print("right: each student has a loss that finds nothing wrong with it, and no student pleases all four")


def all_pairs(answer: Callable[[Tensor, Tensor], Tensor | None] | None) -> None:
    """Notebook 06: the affinity loss over all pairs of different images of a batch."""
    t, s = torch.randn(2, 4, 5, 3, 2, generator=torch.Generator().manual_seed(0))
    s.requires_grad_()
    found = None if answer is None else answer(t, s)
    if not answered(found):
        return
    if not isinstance(found, Tensor) or found.shape != ():
        print(f"not yet: expected one number, a scalar tensor; found {tuple(getattr(found, 'shape', ())) or found}")
        return
    fault = first_match(found, _affinity_cases(t, s.detach()), f"{float(found.detach()):.4f} is no mean over the pairs")
    if not fault and not found.requires_grad:
        fault = "the value is right, but no gradient reaches s"
    print(
        f"not yet: {fault}" if fault else "right: a batch of B images has B - 1 times as many pairs as `inter` compares"
    )


def _affinity_cases(t: Tensor, s: Tensor) -> dict[str, Tensor]:
    """Means over images, pair by pair, of squared differences of cosines: the right one, and others."""
    count = len(t)

    def squares(t: Tensor, s: Tensor, power: int = 2) -> Tensor:
        products = [
            [t[i].flatten(1).T @ t[j].flatten(1) - s[i].flatten(1).T @ s[j].flatten(1) for j in range(count)]
            for i in range(count)
        ]
        return torch.stack([torch.stack(row) for row in products]).abs().pow(power).mean((2, 3))

    u, v, different = F.normalize(t, dim=1), F.normalize(s, dim=1), ~torch.eye(count, dtype=torch.bool)
    pairs = squares(u, v)
    return {
        "": pairs[different].mean(),
        "the pairs of an image with itself are in the mean; that is `intra`": pairs.mean(),
        "an image's pair with itself is 0 now, and still counted in the mean": (pairs * different).mean(),
        "these are the pairs of an image with itself alone": pairs.diagonal().mean(),
        "these are neighbours in the batch only, as in `inter`": pairs.roll(1, 1).diagonal().mean(),
        "this is a sum over pairs; take their mean": pairs[different].sum(),
        "these are products, not cosines; features need the length 1 at every place": squares(t, s)[different].mean(),
        "these are absolute differences; square them": squares(u, v, 1)[different].mean(),
    }


def soft_shares(answer: Callable[[Tensor, Tensor, Tensor], Tensor | None] | None) -> None:
    """Notebook 06: CRAM's shares, without a tensor of all differences."""
    generator = torch.Generator().manual_seed(0)
    x, centres = torch.randn(60, 9, generator=generator), torch.randn(7, 9, generator=generator)
    scales = 0.1 + 0.4 * torch.rand(7, generator=generator)
    with _Largest() as made:
        found = None if answer is None else answer(x, centres, scales)
    if not answered(found) or answer is None:
        return
    if not isinstance(found, Tensor) or found.shape != (60, 7):
        print(f"not yet: expected shares [n, K], here (60, 7), found {tuple(getattr(found, 'shape', ())) or found}")
        return
    otherwise = "these are not the shares of the formula; check the three parts of |x - c|²"
    fault = first_match(found, _share_cases(x, centres, scales), otherwise)
    if not fault and not torch.as_tensor(answer(100 * x, centres, scales)).isfinite().all():
        fault = "right for near tokens; far from all centres exp becomes 0 and 0 / 0 no number, so use torch.softmax"
    if not fault and made.numbers >= x.numel() * len(centres):
        fault = f"right, but through a tensor of {made.numbers} numbers; n · K are {found.numel()}, and enough"
    print(
        f"not yet: {fault}" if fault else "right: a matrix product instead of all differences, as the library does it"
    )


def _share_cases(x: Tensor, centres: Tensor, scales: Tensor) -> dict[str, Tensor]:
    """Shares [n, K] from all differences, in float64: the right ones, and others."""
    squares = (x[:, None].double() - centres).square().sum(2)
    others = squares - x.double().square().sum(1, keepdim=True)
    return {
        "": torch.softmax(-scales * squares, 1),
        "the farthest centre has the largest share; mind the sign": torch.softmax(scales * squares, 1),
        "shares sum to 1 over the tokens here; they should over the centres": torch.softmax(-scales * squares, 0),
        "the scales are not used": torch.softmax(-squares, 1),
        "these are distances; square them": torch.softmax(-scales * squares.sqrt(), 1),
        "shares of a token should sum to 1": torch.exp(-scales * squares),
        "|x|² does not cancel: every centre has a scale of its own": torch.softmax(-scales * others, 1),
        "mind the factor 2 of x·c": torch.softmax(-scales * (squares + x.double() @ centres.double().T), 1),
    }


class _Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor holds that is made meanwhile."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


def own_weights(
    answer: Mapping[str, float] | None, train: Callable[[Mapping[str, float]], Result], to_beat: Result
) -> None:
    """Notebook 06: weights of the four losses, for `train` to learn with and to beat the AUPRO of `to_beat`."""
    if not answered(answer):
        return
    names = ("spatial", "channel", "intra", "inter")
    if unknown := sorted(set(answer) - set(names)):
        print(f"not yet: there is no loss {unknown[0]!r}; expected weights of {', '.join(names)}")
        return
    weights = {name: float(answer.get(name, 0)) for name in names}
    if not all(isfinite(weight) and weight >= 0 for weight in weights.values()):
        print(f"not yet: {weights}; expected weights of 0 or more")
    elif not any(weights[name] for name in names[1:]):
        print("not yet: only `spatial` has a weight, and that is the student to beat")
    else:
        verdict(train(weights), to_beat, "aupro")
