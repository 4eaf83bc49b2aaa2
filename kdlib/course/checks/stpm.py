"""Checkers of notebook 01_stpm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from kdlib import losses
from kdlib.course.checks.answers import answered


def level_weights(answer: Sequence[float] | None) -> None:
    """Notebook 01: what equal errors at 64², 32² and 16² weigh after each map is divided by its number of positions."""
    if not answered(answer):
        return
    given, true = np.asarray(answer, dtype=float), 1 / np.array([64, 32, 16]) ** 2
    if given.shape != (3,) or given.min() <= 0:
        print(f"not yet: expected three positive numbers, the finest level first; found {answer}")
    elif not np.allclose(given / given[0], true / true[0], rtol=1e-3):
        print(
            "not yet: each error is divided by height times width of its own map; which map has the fewest positions?"
        )
    else:
        print("right: the coarsest level speaks 16 times as loud as the finest, although nobody decided that it should")


def rank_pixels(answer: Mapping[str, Any] | None) -> None:
    """Notebook 01: which of two pixels leads under sum and under product, and a third one in between."""
    if not answered(answer):
        return
    pixels = {"A": (0.9, 0.0), "B": (0.3, 0.3)}
    for name, fuse in (("sum", np.sum), ("product", np.prod)):
        if answer.get(name) != max(pixels, key=lambda pixel: float(fuse(pixels[pixel]))):
            print(f"not yet: write out the {name} of A's two distances and that of B's; the larger one leads")
            return
    third = np.asarray(answer.get("C"), dtype=float)
    if third.shape != (2,) or third.min() < 0:
        print(f"not yet: C is a pair of distances, neither below 0; found {answer.get('C')}")
    elif not (np.prod(third) > np.prod(pixels["B"]) and np.sum(third) < np.sum(pixels["A"])):
        print(f"not yet: C has sum {np.sum(third):.3g} and product {np.prod(third):.3g}; one of the two does not fit")
    else:
        print("right: the product asks all levels to agree, the sum is content with one loud level")


def distance_bounds(answer: Sequence[float] | None) -> None:
    """Notebook 01: the largest half squared distance of unit vectors, for any vectors and for those after a ReLU."""
    if not answered(answer):
        return
    given = np.asarray(answer, dtype=float)
    if given.shape != (2,):
        print(f"not yet: expected two numbers; found {answer}")
        return
    e = torch.eye(8)[:, :, None, None]
    random = torch.randn(2, 500, 8, 1, 1, generator=torch.Generator().manual_seed(0))
    cases = {"any features": [(e, -e), tuple(random)], "features after ReLU": [(e, e.roll(1, 0)), tuple(random.relu())]}
    for bound, (name, pairs) in zip(given, cases.items(), strict=True):
        largest = max(float(losses.normalised_l2(t, s).max()) / 2 for t, s in pairs)
        if abs(bound - largest) > 1e-4:
            side = "distances above it exist" if bound < largest else "no pair of vectors comes near it"
            print(f"not yet: {bound:g} for {name}: {side}; the distance is 1 - cos, so how small can cos be?")
            return
    print("right: opposite vectors end the first range, vectors without a common channel the second")
