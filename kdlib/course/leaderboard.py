"""The leaderboard: finished students and lookups of normal features on images that nothing was chosen by.

    python -m kdlib leaderboard --real /path/to/photographs

carries out what is missing, one file per trial, so that it may be stopped at any time: first one model for all products
of the workshop, whose students it saves in `data/students`, then the photographs, the mill's papers, one model per
product, and further seeds. `data/results/leaderboard.csv` has the means over categories, with their spread over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from kdlib.files import write_text
from kdlib.methods import METHODS, own_name, preset
from kdlib.trials import study, table
from kdlib.trials.runner import Report
from kdlib.trials.trial import Protocol, Recipe

SIZE = 256
FORMS = ("plain", "normal", "whitened")
NEAREST = ("nearest", "nearest/coreset")
"""Lookups whose maps are no distances between a teacher's and a student's features, so that they cannot be whitened."""
_DETECTORS = [name for name, kind in METHODS.items() if not kind.product]
ALL = (
    *(Recipe(method=name, maps=FORMS, half=True) for name in ("mean", *(f"{name}/full" for name in _DETECTORS))),
    *(Recipe(method=name, maps=FORMS[:2], half=True) for name in NEAREST),
)
REAL = "real"
ROUNDS: tuple[tuple[str, Protocol, int], ...] = (
    *(("workshop_report", "multi", 0), (REAL, "multi", 0), ("mill_report", "multi", 0)),
    ("workshop_report", "single", 0),
    *(("workshop_report", "multi", 1), (REAL, "multi", 1), ("workshop_report", "multi", 2), (REAL, "multi", 2)),
)
"""Data, protocol and seed, in this order."""
_GROUP = ["set", "protocol", "method", "maps"]
METRICS = ["image_auroc", "pixel_auroc", "aupro"]
_COSTS = ["train_seconds", "latency_ms_p50"]
_MEANS = [*METRICS, *_COSTS, "megabytes"]


def run(
    real: str | None, methods: Sequence[str] | None, rounds: int | None, out: Path, students: Path, report: Report
) -> Path:
    """Carries out what is missing of the leaderboard; returns its file, `out/leaderboard.csv`.

    Args:
        real: Root of a data set of photographs; `None` leaves those rounds out.
        methods: Only these, such as `rd/full` or `nearest`; `None`: all.
        rounds: Only so many of `ROUNDS`, the first; `None`: all.
        out: Folder of the tables.
        students: Folder that receives a folder per finished student of the workshop.
        report: Is called with a line of text per row.

    Raises:
        ValueError: If a method is not on the leaderboard, or the images do not fit.
    """
    known = [recipe.method for recipe in ALL]
    wanted = known if methods is None else [own_name(method) for method in methods]
    if unknown := sorted(set(wanted) - set(known)):
        raise ValueError(f"the leaderboard has no {unknown}; it has {known}")
    chosen = [recipe for recipe in ALL if recipe.method in wanted]
    for data, protocol, seed in ROUNDS[:rounds]:
        if data == REAL and real is None:
            continue
        recipes = chosen if protocol == "multi" else [alone(recipe) for recipe in chosen]
        keep = students if data == "workshop_report" else None
        place = real or "" if data == REAL else data
        study.run("leaderboard", recipes, place, [seed], SIZE, out, report, students=keep)
        write_text(out / "leaderboard.csv", summary(out).to_csv(index=False, lineterminator="\n"))
    return out / "leaderboard.csv"


def alone(recipe: Recipe) -> Recipe:
    """The same for one model per category, which trains for a third of the steps."""
    steps = preset(recipe.method).steps
    options = {} if steps is None else {"steps": steps // 3}
    return replace(recipe, protocol="single", options=options)


def summary(folder: Path) -> pd.DataFrame:
    """Means over categories, then over seeds, of all `leaderboard_SET.csv`; best image AUROC of a set first.

    Spreads are standard deviations over seeds; empty for one seed. Seconds and milliseconds are those of processors:
    rows that were measured on another kind of device count for everything else.
    """
    parts = []
    for path in sorted(folder.glob("leaderboard_*.csv")):
        rows = pd.DataFrame(table.read(path))
        if len(rows):
            parts.append(rows.assign(set=path.stem.removeprefix("leaderboard_")))
    if not parts:
        return pd.DataFrame(columns=[*_GROUP, "seeds", *_MEANS])
    rows = pd.concat(parts)
    rows[_MEANS] = rows[_MEANS].astype(float)
    rows[_COSTS] = rows[_COSTS].where(rows["runtime"].str.startswith("cpu"))
    seeds = rows.groupby([*_GROUP, "seed"])[_MEANS].mean().groupby(_GROUP)
    means, spreads = seeds.mean(), seeds.std()
    means.insert(0, "seeds", seeds.size())
    for metric in METRICS:
        means.insert(means.columns.get_loc(metric) + 1, f"{metric}_spread", spreads[metric])
    ordered = means.reset_index().sort_values(["set", "protocol", "image_auroc"], ascending=[True, True, False])
    return ordered.round(dict.fromkeys(ordered.columns[5:], 4))
