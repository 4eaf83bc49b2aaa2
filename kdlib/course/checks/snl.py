"""Checkers of notebook 06_snl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from kdlib import losses
from kdlib.course.checks.answers import answered, numbers_right


def memory_limits(answer: Mapping[str, Sequence[float]] | None) -> None:
    """Notebook 06: what CRAM with centres (0, 0) and (4, 0) makes of the token (1, 0) at its limits."""
    if not answered(answer):
        return
    hints = {
        "one centre": "with one centre its share is 1, whatever the token",
        "huge scales": "huge scales give the nearest centre the whole share",
        "zero scales": "equal shares make a mean of the centres",
        "identity": "the shares sum to 1, so sum a (c + x - c) is",
    }
    true = dict(zip(hints, ((0, 0), (0, 0), (2, 0), (1, 0)), strict=True))
    for name, value in true.items():
        given = np.asarray(answer.get(name, ()), dtype=float)
        if given.shape != (2,) or not np.allclose(given, value, atol=1e-3):
            print(f"not yet: {answer.get(name)} for '{name}'; {hints[name]}")
            return
    print("right: from nothing of the token to all of it; what lies between is decided by rho and by the scales")


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


def reductions(answer: Mapping[str, float] | None) -> None:
    """Notebook 06: sizes at a map of 64 x 64: how far two channel losses differ, entries of an affinity matrix."""
    if not answered(answer):
        return
    true = {"cwd / vandgnl": 64**2, "entries": 64**4, "entries on a grid of 16": 16**4}
    if numbers_right(answer, true, "count positions first: height times width", relative=0.01):
        print("right: the mean makes the channel loss nearly silent, and the grid makes the affinities affordable")
