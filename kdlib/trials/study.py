"""Studies: a grid of recipes on one data set, every seed of it a round. The grids themselves are in the course."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kdlib.data.records import Splits
from kdlib.trials import checks, images, table
from kdlib.trials.names import folder_name
from kdlib.trials.runner import Report, carry_out
from kdlib.trials.store import Store
from kdlib.trials.trial import Recipe, Trial

COLUMNS = dict.fromkeys(table.COLUMNS, ".4f") | {"train_seconds": ".1f"}


def run(
    name: str, recipes: Sequence[Recipe], data: str, seeds: Sequence[int], size: int, out: Path, report: Report = print
) -> Path:
    """Carries out what is missing of a study; returns the file with its rows.

    Args:
        name: Of the study, and of its file.
        recipes: What to train.
        data: Root of a data set, or `workshop`, `mill`; its folder's name becomes part of the file's.
        seeds: Seeds, the outermost loop: a study that is stopped early has all trials for fewer seeds.
        size: Working height and width in pixels.
        out: Folder of the file. Its rows of variants that have other options by now are dropped.
        report: Is called with a line of text per row.

    Raises:
        ValueError: If a method, an option, the images or their size do not fit, before anything is trained; or if the
            file is damaged or no study's.
    """
    for recipe in recipes:
        recipe.config()
    splits = images.load(data, None, size=size)
    stem = f"{name}_{folder_name(Path(images.normalised(data)).name)}"
    store = Store(out / f"{stem}.csv", out / "trials" / stem, COLUMNS, recipes)
    fewer = _with_fewer_classes(recipes, data, splits, size)
    prints = images.fingerprints(splits)
    trials = []
    for seed in dict.fromkeys(seeds):
        for recipe in recipes:
            trials += _trials(recipe, seed, fewer.get(recipe.classes, splits), prints)
    checks.check([trial for trial in trials if not store.done(trial)])
    carry_out(trials, store, report)
    return store.path


def _with_fewer_classes(recipes: Sequence[Recipe], data: str, splits: Splits, size: int) -> dict[int, Splits]:
    """The sets of the first categories, for every number of categories that a recipe names."""
    numbers = {recipe.classes for recipe in recipes if recipe.classes}
    return {n: images.load(data, list(splits.categories[:n]), size=size) for n in numbers}


def _trials(recipe: Recipe, seed: int, splits: Splits, data: Mapping[str, str]) -> list[Trial]:
    classes = len(splits.categories)
    parts = [splits] if recipe.protocol == "multi" else [splits.of(category) for category in splits.categories]
    return [Trial(recipe=recipe, seed=seed, splits=part, classes=classes, data=data) for part in parts]
