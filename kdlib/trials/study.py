"""Studies: a grid of recipes on one data set, every seed of it a round. The grids themselves are in the course."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kdlib.trials import images, table
from kdlib.trials.names import folder_name
from kdlib.trials.runner import Report, carry_out, check
from kdlib.trials.store import Store
from kdlib.trials.trial import Recipe, Trial, trials

COLUMNS = dict.fromkeys((*table.COLUMNS, *table.DEFAULTS), ".4f") | {"train_seconds": ".1f", "latency_ms_p50": ".1f"}


def run(
    name: str,
    recipes: Sequence[Recipe],
    data: str,
    seeds: Sequence[int],
    size: int,
    out: Path,
    report: Report = print,
    white: int | None = None,
    students: Path | None = None,
) -> Path:
    """Carries out what is missing of a study; returns the file with its rows, `out/NAME_DATA.csv`.

    Seeds are the outermost loop: a study that is stopped early has all trials for fewer seeds. Rows of variants that
    have other options by now are dropped. Students that were trained on all categories with seed 0 are saved
    below `students`, where that is given.

    Raises:
        ValueError: If a method, an option, the images or their size do not fit, before anything is trained; or if the
            file is damaged or no study's.
    """
    for recipe in recipes:
        recipe.config()
    splits = images.load(data, None, size=size, white=white)
    stem = f"{name}_{folder_name(Path(images.normalised(data)).name)}"
    store = Store(out / f"{stem}.csv", out / "trials" / stem, COLUMNS, recipes)
    first = {0: splits}  # the sets of the first categories, by the number of categories that a recipe names
    for n in {recipe.classes for recipe in recipes if recipe.classes}:
        first[n] = images.load(data, list(splits.categories[:n]), size=size, white=white)
    prints = images.fingerprints(splits)
    wanted: list[Trial] = []
    for seed in dict.fromkeys(seeds):
        for recipe in recipes:
            images_of = first[recipe.classes]
            wanted += trials(recipe, seed, images_of, prints, classes=len(images_of.categories))
    check(wanted, store)
    carry_out(wanted, store, report, students=students)
    return store.path
