"""Checkers of notebook 03_one_model_for_all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdlib.contract import Distiller
from kdlib.course.checks.answers import answered, beats
from kdlib.data.records import ImageSet
from kdlib.scoring import metrics
from kdlib.scoring.result import Result


def one_threshold(answer: Mapping[str, Sequence[float]] | None) -> None:
    """Notebook 03: two categories, each told apart perfectly, that no common threshold serves."""
    if not answered(answer):
        return
    pairs = np.asarray([answer.get(name, (0, 0)) for name in ("A", "B")], dtype=float)
    if pairs.shape != (2, 2) or (pairs[:, 0] >= pairs[:, 1]).any():
        print("not yet: A and B are pairs (score of a normal image, higher score of a defective one)")
        return
    pooled = metrics.image_metrics(pairs.flatten(), [0, 1, 0, 1])["image_auroc"]
    if pooled > 0.75:
        print(f"not yet: mean 1, pooled {pooled:.2f}; of the four pairs of a normal and a defective image, lose one")
    else:
        print(f"right: mean 1, pooled {pooled:.2f}: a defect of one category ranks below a normal image of the other")


def mean_and_pooled(answer: Callable[[Any, Any, Any], tuple[float, float]] | None) -> None:
    """Notebook 03: the mean of the categories' AUROCs and the AUROC of all images together, from pairs of images."""
    rng = np.random.default_rng(0)
    names = np.repeat(["A", "B", "C"], (6, 10, 16))
    labels = np.tile([0, 1, 1, 0, 0, 0, 0, 1], 4)
    scores = rng.integers(0, 5, 32) + labels + np.repeat([0, 3, 1], (6, 10, 16))  # with ties
    found = None if answer is None else answer(scores.astype(float), labels, names)
    if not answered(found):
        return
    if np.shape(found) != (2,):
        print(f"not yet: expected two numbers, (mean, pooled); found {found}")
        return
    fault = _auroc_fault(np.asarray(found, dtype=float), scores, labels, names)
    mean, pooled = found
    print(f"not yet: {fault}" if fault else f"right: mean {mean:.3f}, pooled {pooled:.3f}: one table, two questions")


def _auroc_fault(found: Any, scores: Any, labels: Any, names: Any) -> str:
    """What is wrong with a pair (mean, pooled)."""
    parts = [names == name for name in np.unique(names)]
    each = [metrics.image_metrics(scores[part], labels[part])["image_auroc"] for part in parts]
    mean, pooled = float(np.mean(each)), metrics.image_metrics(scores, labels)["image_auroc"]
    weighted = float(np.average(each, weights=[part.sum() for part in parts]))
    if np.allclose(found, (mean, pooled), atol=1e-6):
        return ""
    if np.allclose(found, (pooled, mean), atol=1e-6):
        return "the two numbers are right, their order is not: the mean comes first"
    if np.allclose(found, (1 - mean, 1 - pooled), atol=1e-6):
        return "you count the pairs that are lost; a pair is won where the defective image scores higher"
    for tie in (0.0, 1.0):
        own = float(np.mean([_won(scores[part], labels[part], tie) for part in parts]))
        if np.allclose(found, (own, _won(scores, labels, tie)), atol=1e-6):
            return f"a pair with equal scores counts one half, not {tie:.0f}"
    if abs(found[0] - weighted) < 1e-6:
        return "in the mean every category counts the same, however many images it has"
    if abs(found[0] - mean) < 1e-6:
        return f"the mean is right, pooled {found[1]:.3f} is not: here all products form pairs with each other"
    return f"mean {found[0]:.3f}: form all pairs of a normal and a defective image inside each category"


def _won(scores: Any, labels: Any, tie: float) -> float:
    """Share of the pairs of a defective and a normal image that the defective one wins; a draw counts `tie`."""
    difference = scores[labels == 1][:, None] - scores[labels == 0]
    return float(((difference > 0) + tie * (difference == 0)).mean())


Students = Sequence[tuple[Tensor, Tensor]]
"""Of each category the centre [C] and the directions [k, C] of its linear student."""


def routed(answer: Callable[[Tensor, Students], Tensor] | None) -> None:
    """Notebook 03: features of images restored by the student of one category each, the one that fits best."""
    t, students, category = _images_of_three()
    found = None if answer is None else answer(t, students)
    if not answered(found):
        return
    if not isinstance(found, Tensor) or found.shape != t.shape:
        print(f"not yet: expected a tensor like t, {tuple(t.shape)}; found {getattr(found, 'shape', found)}")
        return
    for fault, restored in _routes(t, students, category).items():
        if torch.allclose(found, restored, atol=1e-4):
            ending = "right: no product's student helps to restore another product's defect"
            print(f"not yet: {fault}" if fault else ending)
            return
    print("not yet: nobody's features; a student gives centre + (t - centre) V'V, with its directions V [k, C]")


def _images_of_three() -> tuple[Tensor, Students, Tensor]:
    """Images [5, 4, 3, 6] of three products, one position of each replaced by another product's; their categories.

    An image is far from its own centre, along the directions of its product, and near the next product's centre.
    """
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(6, 6, generator=generator)).Q
    directions = basis.view(3, 2, 6)
    students = [(3 * directions[k - 1].sum(0) - directions[k].sum(0), directions[k]) for k in range(3)]
    category = torch.tensor([0, 1, 2, 0, 1])
    shares = 2 * torch.randn(5, 4, 3, 2, generator=generator) + 4
    t = torch.stack([students[k][0] + share @ students[k][1] for k, share in zip(category, shares, strict=True)])
    for image, k in zip(t, category, strict=True):
        centre, foreign = students[(k + 1) % 3]
        image[1, 1] = centre + foreign.sum(0)
    return t + 0.05 * torch.randn(t.shape, generator=generator), students, category


def _routes(t: Tensor, students: Students, category: Tensor) -> dict[str, Tensor]:
    """What images [B, h, w, C] become by the right way and by wrong ones, each with its fault."""
    places = torch.arange(len(t))
    tries = torch.stack([c + (t - c) @ v.T @ v for c, v in students])  # [K, B, h, w, C]
    error = (tries - t).square().mean(-1)
    nearest = torch.stack([(t.mean((1, 2)) - c).norm(dim=1) for c, _ in students]).argmin(0)
    by_position = error.argmin(0)[None, ..., None].expand(1, *t.shape)
    from_zero = torch.stack([t @ v.T @ v for _, v in students])
    no_return = torch.stack([(t - c) @ v.T @ v for c, v in students])
    return {
        "": tries[category, places],
        "every position chooses for itself, so a defect finds the product that knows it; choose once per image": (
            tries.gather(0, by_position)[0]
        ),
        "one student restores the whole batch; every image chooses": tries[int(error.mean((1, 2, 3)).argmin())],
        "these are the students that fit worst": tries[error.mean((2, 3)).argmax(0), places],
        "the nearest centre is not the best student: compare what is restored with t": tries[nearest, places],
        "these are the features as they came": t,
        "this is the mean of all students": tries.mean(0),
        "the centre is not subtracted before the directions are applied": from_zero[category, places],
        "the centre is not added again": no_return[category, places],
    }


def own_student(
    answer: Distiller | None, sets: Mapping[str, ImageSet], to_beat: Mapping[str, Result], most: int
) -> None:
    """Notebook 03: the learner's joint student, trained for no more than `most` steps, on the first of several sets."""
    if not answered(answer):
        return
    beats(answer, sets, to_beat, most)
