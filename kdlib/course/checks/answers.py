"""What checkers ask of every answer: is there one, are its numbers right, which mistake is it, does it beat a score?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeGuard, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from kdlib.contract import Distiller
from kdlib.data.records import ImageSet
from kdlib.scoring.evaluation import evaluate
from kdlib.scoring.result import Result

T = TypeVar("T")


def answered(answer: T | None) -> TypeGuard[T]:
    """Whether an answer is there and no part of it is still the stub; says so if not."""
    parts = list(answer.values()) if isinstance(answer, Mapping) else answer
    parts = parts if isinstance(parts, (list, tuple)) else [parts]
    complete = all(part is not None for part in parts)
    if not complete:
        print("not answered yet")
    return complete


def numbers_right(
    answer: Mapping[str, float], true: Mapping[str, float], hint: str, *, relative: float = 0.0, absolute: float = 0.0
) -> bool:
    """Whether every number is within its tolerance of the true one; if not, names the first, with a hint."""
    for name, value in true.items():
        given = answer.get(name)
        if given is None or not abs(float(given) - value) <= absolute + relative * abs(value):
            print(f"not yet: {given} for '{name}'; {hint}")
            return False
    return True


def first_match(found: Tensor, cases: Mapping[str, Tensor], otherwise: str) -> str:
    """What is wrong with `found`: the first of the cases that has its values, `""` for the right one."""
    for fault, values in cases.items():
        if found.shape == values.shape and torch.allclose(found.detach().float(), values.float(), rtol=1e-4, atol=1e-5):
            return fault
    return otherwise


def verdict(own: Result, to_beat: Result, metric: str) -> None:
    """Says whether `own` is above `to_beat` in a metric, `image_auroc` or `aupro`, and where it is weakest."""
    names = {"image_auroc": "image AUROC", "aupro": "AUPRO"}
    kinds = sorted(set(own.defects.tolist()) - {"normal"})
    by_kind = {kind: own.of_defect(kind).metrics()[metric] for kind in kinds}
    weakest = min(by_kind, key=lambda kind: by_kind[kind])
    mine, theirs = own.metrics(), to_beat.metrics()
    (other,) = set(names) - {metric}
    print(
        f"{'right' if mine[metric] > theirs[metric] else 'not yet'}: {names[metric]} {mine[metric]:.3f} "
        f"(to beat: {theirs[metric]:.3f}), {names[other]} {mine[other]:.3f} ({theirs[other]:.3f}); "
        f"weakest on {weakest.replace('_', ' ')}, {by_kind[weakest]:.3f}"
    )


def maps_judged(answer: ArrayLike | None, to_beat: Result, metric: str) -> None:
    """The verdict on maps [N, H, W] of the images of `to_beat`; an image's score is the highest value of its map."""
    if not answered(answer):
        return
    maps = np.asarray(answer, dtype=np.float32)
    if maps.shape != to_beat.maps.shape or not np.isfinite(maps).all():
        print(f"not yet: expected finite maps {to_beat.maps.shape}, one per test image; found {maps.shape}")
    else:
        verdict(replace(to_beat, kept_maps=maps, scores=maps.max((1, 2))), to_beat, metric)


def beats(model: Distiller, sets: Mapping[str, ImageSet], to_beat: Mapping[str, Result], most: int) -> None:
    """Says whether a model of at most so many steps has, on the first set, a higher AUPRO than the result of that name.

    The other sets' AUPROs are printed beside it, so that one sees who pays.
    """
    if model.config.steps is None or model.config.steps > most:
        print(f"not yet: trained for {model.config.steps} steps; expected at most {most}, as the student to beat")
        return
    own = {name: evaluate(model, images).metrics()["aupro"] for name, images in sets.items()}
    theirs = {name: to_beat[name].metrics()["aupro"] for name in sets}
    words = [f"{name.replace('_', ' ')} {own[name]:.3f} (to beat: {theirs[name]:.3f})" for name in sets]
    first = next(iter(sets))
    print(f"{'right' if own[first] > theirs[first] else 'not yet'}: AUPRO {', '.join(words)}")
