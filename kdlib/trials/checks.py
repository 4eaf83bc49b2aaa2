"""What would stop a trial at its end is found before the first of them is trained."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from kdlib import methods
from kdlib.runtime import processes
from kdlib.trials.trial import Recipe, Trial


def check(trials: Sequence[Trial]) -> None:
    """Builds every method once and reads every image once.

    Args:
        trials: What is to be trained.

    Raises:
        ValueError: If a method does not work at this size, or a file is damaged.
    """
    checked: list[tuple[Recipe, tuple[int, int]]] = []
    for trial in trials:
        network = (trial.recipe, trial.splits.train.size)
        if network not in checked:
            check_method(*network)
            checked.append(network)
    if not processes().is_main_process:
        return
    seen: set[str] = set()
    for trial in trials:
        for category in trial.categories:
            if category not in seen:
                trial.splits.of(category).check()
                seen.add(category)


def check_method(recipe: Recipe, size: tuple[int, int]) -> None:
    """Sends one empty image through the untrained method.

    Raises:
        ValueError: If its network, weights, size or score do not work.
    """
    model = methods.make(recipe.method, recipe.config()).eval()
    image = torch.zeros(1, 3, *size)
    with torch.inference_mode():
        model.image_score(torch.zeros(1, 1, *size))
        if recipe.method.partition("/")[0] in methods.BASELINES:
            model.teacher(image)  # a baseline has no maps before it has seen normal images
        else:
            model.anomaly_map(image)
