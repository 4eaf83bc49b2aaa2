"""Checkers of notebook 01_stpm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdlib.course.checks.answers import answered
from kdlib.scoring.calibration import threshold


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


def own_threshold(answer: Callable[[NDArray[np.float64], float], float | None] | None) -> None:
    """Notebook 01: a threshold from the scores of normal images, as an order statistic."""
    rng = np.random.default_rng(0)
    for n, quantile in ((100, 0.95), (199, 0.9), (19, 0.95), (12, 0.95)):
        scores = rng.permutation(np.arange(1.0, n + 1))  # in any order; a score's value is its rank
        try:
            found = None if answer is None else answer(scores, quantile)
        except IndexError as error:
            print(f"not yet: {error} for {n} scores; where the rank exceeds n, the highest score is what we have")
            return
        if not answered(found):
            return
        true = threshold(scores, quantile).value
        if found != true:
            case = f"{found:g} for the scores 1 to {n} in any order and the share {quantile}"
            print(f"not yet: {case}; {_rank_hint(found, n, quantile)}")
            return
    print("right: this is kdlib's threshold; it needs to know nothing about the scores but their order")


def _rank_hint(found: float, n: int, quantile: float) -> str:
    """What may have gone wrong with a rank `found` among n scores."""
    if found != round(found):
        return "that is no one of the scores; a promise about ranks takes a score, nothing between two"
    if found == math.ceil(n * quantile):
        return "the future image has a rank, too: n + 1 scores are in random order"
    if found == math.floor((n + 1) * quantile):
        return "rounded down, the promise is broken by a hair: round up"
    if found == math.ceil((n + 1) * quantile) + 1:
        return "one rank too high: the k-th smallest is at position k - 1 of the sorted scores"
    return "sort the scores, and take the k-th smallest, k = ceil((n + 1) x share)"
