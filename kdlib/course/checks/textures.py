"""Checkers of notebook 10_textures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter, gaussian_filter1d
from torch import Tensor

from kdlib.contract import Distiller
from kdlib.course.checks.answers import answered, beats, first_match, numbers_right
from kdlib.data.records import ImageSet
from kdlib.scoring.result import Result

_SIGMA = 2.0


def texture_numbers(answer: Mapping[str, Any] | None) -> None:
    """Notebook 10: a share of samples, a gain, and which of two places a sum and a product put first."""
    if not answered(answer):
        return
    hint = "samples are taken in rows and in columns; two passes multiply their gains"
    if not numbers_right(answer, {"share": 1 / 64, "gain": 0.25}, hint, relative=0.01):
        return
    for fusion, place in (("sum", "a"), ("product", "b")):
        if answer[fusion] != place:
            print(f"not yet: '{answer[fusion]}' for '{fusion}'; compute both places: 0.9 and 0.05, 0.4 and 0.4")
            return
    print("right: a sum believes the branch that shouts, a product wants both to speak")


def any_shape_gains(answer: Callable[[int, int, float], Tensor | None] | None) -> None:
    """Notebook 10: Butterworth's gains for every frequency of a map that need not be square."""
    for height, width, cutoff in ((8, 8, 0.25), (6, 10, 0.3), (7, 12, 0.2)):
        found = None if answer is None else answer(height, width, cutoff)
        if not answered(found):
            return
        if not isinstance(found, Tensor) or found.shape != (height, width):
            print(f"not yet: expected gains {(height, width)}; found {getattr(found, 'shape', found)}")
            return
        if fault := _gains_fault(found, height, width, cutoff):
            print(f"not yet: {height} x {width}: {fault}")
            return
    print("right: gain 1 for what never changes, a half at the cutoff, the same in both directions")


def _gains_fault(found: Tensor, height: int, width: int, cutoff: float) -> str:
    """What is wrong with gains [h, w]."""
    down, across = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None]
    r = (down.square() + across.square()).sqrt()
    bins = ((down * height).square() + (across * width).square()).sqrt()

    def gain(radius: Tensor, power: int = 4) -> Tensor:
        return 1 / (1 + (radius / cutoff) ** power)

    cases = {
        "": gain(r),
        "the zero frequency is in the middle; it comes first in `fft2`, as in `fftfreq`": torch.fft.fftshift(gain(r)),
        "r is counted in bins; `fftfreq` gives cycles per position, whatever the size": gain(bins),
        "the gain falls too slowly: order 2 has the fourth power": gain(r, 2),
        "these are the gains of two passes": gain(r).square(),
        "what is kept is what should go: this filter passes the high frequencies": 1 - gain(r),
    }
    return first_match(
        found, cases, f"the gain of the zero frequency is {float(found[0, 0]):.3f}, expected 1; compare one row"
    )


def blur_of_each(answer: Callable[[NDArray[Any], float], ArrayLike | None] | None) -> None:
    """Notebook 10: a blur of maps [N, H, W] that treats every map alike, alone and in company."""
    maps = np.zeros((3, 24, 32))
    maps[0, 12, 16] = maps[1, 8, 8] = maps[2, 4, 20] = 1
    for part in (maps[:1], maps):
        found = None if answer is None else answer(part, _SIGMA)
        if not answered(found):
            return
        blurred = torch.from_numpy(np.array(found, dtype=float))
        if blurred.shape != part.shape:
            print(f"not yet: expected maps {part.shape}, found {tuple(blurred.shape)}")
            return
        cases = {
            "": gaussian_filter(part, (0, _SIGMA, _SIGMA)),
            "the maps are as before": part,
            "one direction only: this is the published mistake": gaussian_filter1d(part, _SIGMA, axis=2),
            "one direction only, and not even the published one": gaussian_filter1d(part, _SIGMA, axis=1),
            "neighbours in the batch are blurred into each other": gaussian_filter(part, _SIGMA),
        }
        fault = first_match(
            blurred, {name: torch.from_numpy(m) for name, m in cases.items()}, "the spot has another form than expected"
        )
        if fault:
            print(f"not yet: {len(part)} map(s): {fault}")
            return
    print("right: a spot becomes a round spot, alone and in company")


def own_restorer(
    answer: Distiller | None, sets: Mapping[str, ImageSet], to_beat: Mapping[str, Result], most: int
) -> None:
    """Notebook 10: the learner's own SingleNet, trained for no more than `most` steps, on the first of several sets."""
    if not answered(answer):
        return
    if answer.name != "singlenet":
        print(f"not yet: the method is {answer.name}; expected a singlenet with other settings")
        return
    beats(answer, sets, to_beat, most)
