"""Checkers of notebook 12_aand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import exp
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from kdlib import losses
from kdlib.course.checks.answers import answered, first_match, numbers_right, verdict
from kdlib.scoring.result import Result

_SETTINGS = ("clean", "on_foreground", "push", "push_weight", "hardest", "items", "score")


def best_gate(answer: Mapping[str, float] | None) -> None:
    """Notebook 12: the gate of a perfect match, and the weight of a hard position's gradient."""
    if not answered(answer):
        return
    true = {"gate": (exp(5) + 49 * exp(-5)) / (exp(5) + 99 * exp(-5)), "weight": 64 * 64 / 10}
    hint = "a cosine of 1 becomes e^5 after the division by 0.2; one of ten means 1/10, one of all 1/(64 x 64)"
    if numbers_right(answer, true, hint, absolute=5e-4, relative=1e-3):
        print("right: a temperature of 0.2 lets a gate close or open fully, and ten positions outweigh thousands")


def hardest(answer: Callable[..., Tensor | None] | None) -> None:
    """Notebook 12: mean distance of every image's worst positions."""
    generator = torch.Generator().manual_seed(0)
    t, noise = torch.randn(2, 3, 6, 4, 5, generator=generator)
    s = t + noise * torch.tensor([0.2, 1.0, 2.0]).view(3, 1, 1, 1)
    found = None if answer is None else answer(t, s, 4)
    if not answered(found):
        return
    if not isinstance(found, Tensor) or found.shape != ():
        print(f"not yet: expected one number as a tensor; found {getattr(found, 'shape', found)}")
        return
    distance = losses.cosine_distance(t, s)
    flat = distance.flatten(1)
    cases = {
        "": losses.hardest_cosine(t, s, 4),
        "these are the best restored positions; `topk` takes the largest": flat.topk(4, largest=False).values.mean(),
        "these are the worst of the whole batch; every image has worst ones of its own": _top(distance, 12),
        "that is the mean of all positions": distance.mean(),
        "that is a sum over positions; take their mean": flat.topk(4).values.sum(1).mean(),
    }
    fault = first_match(found, cases, f"found {float(found):.4f}, expected {float(cases['']):.4f}")
    if not fault and abs(float(answer(t, s, 99)) - float(distance.mean())) > 1e-5:  # type: ignore[misc, arg-type]
        fault = "where a map has fewer positions than are asked for, all of them count"
    print(f"not yet: {fault}" if fault else "right: it rises with the worst places and forgets all the others")


def _top(values: Tensor, count: int) -> Tensor:
    return values.flatten().topk(count).values.mean()


def optimism(answer: Callable[..., float | None] | None, scores: NDArray[Any], labels: NDArray[Any]) -> None:
    """Notebook 12: how much better a checkpoint looks on the images that it was chosen by.

    Args:
        answer: Takes scores [K, N], labels [N] and halves [R, N], True in the half that chooses.
        scores: Of K checkpoints on N test images, from the notebook.
        labels: Of those images.
    """
    halves = _halves(labels)
    found = None if answer is None else answer(scores, labels, halves)
    if not answered(found):
        return
    gains = np.array([_chosen(scores, labels, half) for half in halves])
    true = float((gains[:, 0] - gains[:, 1]).mean())
    cases = {
        "both AUROCs are those of the half that chose": 0.0,
        "the sign is turned: the half that chose looks better": -true,
        "compare with the same checkpoint on the other half, not with the last checkpoint": float(
            (gains[:, 0] - gains[:, 2]).mean()
        ),
    }
    if abs(float(found) - true) < 1e-6:
        noise = np.random.default_rng(0).random(scores.shape)
        luck = [_chosen(noise, labels, half) for half in halves]
        print(
            f"right: {true:+.3f} AUROC of nothing but choice; with scores that are pure noise it is "
            f"{np.mean([a - b for a, b, _ in luck]):+.3f}"
        )
        return
    fault = next((text for text, value in cases.items() if abs(float(found) - value) < 1e-6), "")
    print(f"not yet: {fault or f'found {float(found):+.4f}, expected another mean over all pairs of halves'}")


def _halves(labels: NDArray[Any], count: int = 200) -> NDArray[np.bool_]:
    """Random halves [R, N] of test images, each with half of the normal and half of the defective ones."""
    rng, halves = np.random.default_rng(0), np.zeros((count, len(labels)), dtype=bool)
    for half in halves:
        for label in (0, 1):
            members = np.flatnonzero(labels == label)
            half[rng.permutation(members)[: len(members) // 2]] = True
    return halves


def _chosen(scores: NDArray[Any], labels: NDArray[Any], half: NDArray[np.bool_]) -> tuple[float, float, float]:
    """AUROC of the best checkpoint of a half, there and on the other half, and of the last one on the other half."""
    of_half = [roc_auc_score(labels[half], each[half]) for each in scores]
    best = scores[int(np.argmax(of_half))]
    others = [roc_auc_score(labels[~half], each[~half]) for each in (best, scores[-1])]
    return max(of_half), others[0], others[1]


def own_settings(
    answer: Mapping[str, Any] | None, train: Callable[[Mapping[str, Any]], Result], to_beat: Result
) -> None:
    """Notebook 12: settings of the two stages, for `train` to learn with and to beat the image AUROC of `to_beat`."""
    if not answered(answer):
        return
    if unknown := sorted(set(answer) - set(_SETTINGS)):
        print(f"not yet: {unknown[0]!r} may not change here; expected some of {', '.join(_SETTINGS)}")
        return
    try:
        own = train(answer)
    except ValueError as error:
        print(f"not yet: {error}")
    else:
        verdict(own, to_beat, "image_auroc")
