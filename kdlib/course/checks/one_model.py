"""Checkers of notebook 03_one_model_for_all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kdlib.course.checks.answers import answered, numbers_right
from kdlib.scoring import metrics


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


def steps_and_epochs(answer: Mapping[str, float] | None) -> None:
    """Notebook 03: how often 48 images of a category are seen, alone and as one of six, in batches of 16."""
    if not answered(answer):
        return
    true = {"epochs, one category": 600 * 16 / 48, "epochs, six": 600 * 16 / 288, "steps to be even": 600 * 6}
    if numbers_right(answer, true, "an epoch is images divided by images per step", relative=0.01):
        print(
            "right: at equal steps the joint student saw each image six times less often: say which of the two is equal"
        )


def mixed_masks(answer: Mapping[str, float] | None) -> None:
    """Notebook 03: which share of the pixels is wrong in mixed images, and what that makes of pixel AP by chance."""
    if not answered(answer):
        return
    true = {"mixup": 1, "paste": 1 / 16, "AP by chance": 1 / 32}
    if numbers_right(answer, true, "count pixels that no photograph of one product has there", relative=0.02):
        print("right: a mixup has no normal pixel left, so it can have an image score, but no pixel AUROC of its own")
