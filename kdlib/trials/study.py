"""The engine of studies: many trainings, one file of rows, continued where it stopped. The grids: studies.py."""

from __future__ import annotations

import csv
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from kdlib import data as datasets
from kdlib import methods
from kdlib.data.records import Splits
from kdlib.files import write_csv
from kdlib.scoring.evaluation import evaluate
from kdlib.training.history import History
from kdlib.training.loop import fit

COLUMNS = (
    *("method", "variant", "options", "protocol", "classes", "category", "seed", "steps"),
    *("image_auroc", "pixel_auroc", "aupro", "train_seconds", "size", "runtime"),
)
Row = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One line of a study: a method, what is changed in it, how it is trained, when it is evaluated.

    Attributes:
        method: Name or name/preset.
        variant: What differs from the preset, as tables show it; empty for the preset itself.
        protocol: `single`, one model per category, or `multi`, one model for all.
        options: Fields of the method's configuration.
        stops: Lengths of training in steps at which one training is evaluated; more than one only for methods that
            train in one phase at a constant learning rate. Empty: the preset's own length.
        classes: Take only so many categories, the first by name; 0 takes all.
    """

    method: str
    variant: str = ""
    protocol: Literal["single", "multi"] = "multi"
    options: Mapping[str, Any] = field(default_factory=dict)
    stops: tuple[int, ...] = ()
    classes: int = 0


def run(name: str, trials: tuple[Trial, ...], data: str, seeds: list[int], size: int, out: Path) -> Path:
    """Carries out what is missing of a study; returns the file with its rows.

    Args:
        name: Of the study, and of its file.
        trials: What to train.
        data: Root of a data set, or `workshop`, `mill`; its folder's name becomes part of the file's.
        seeds: Seeds, the outermost loop: a study that is stopped early has all trials for fewer seeds.
        size: Working height and width in pixels.
        out: Folder of the file. Its rows of variants that have other options by now are dropped.

    Raises:
        ValueError: If the file has other columns.
    """
    everything = datasets.load(data, size=size)
    path = out / f"{name}_{Path(data).name}.csv"
    rows = [row for row in _all_rows(path) if not _outdated(row, trials)] if path.exists() else []
    for seed in seeds:
        for trial in trials:
            chosen = everything
            if trial.classes:
                chosen = datasets.load(data, everything.categories[: trial.classes], size=size)
            parts = [chosen] if trial.protocol == "multi" else [chosen.of(c) for c in chosen.categories]
            for part in parts:
                if not _done(rows, trial, seed, part, len(chosen.categories), size):
                    new = _train(trial, seed, part, len(chosen.categories), size)
                    # A trial that got a further stop is trained again, its other rows with it.
                    again = {(_training(row), row["category"]) for row in new}
                    rows = [row for row in rows if (_training(row), row["category"]) not in again] + new
                    write_csv(path, COLUMNS, rows)
    return path


def read(path: Path) -> list[Row]:
    """The rows of a study's file, without those of a seed whose categories are not all there yet.

    Raises:
        ValueError: If its columns are not a study's.
    """
    rows = _all_rows(path)
    per_training = Counter(_training(row) for row in rows)
    return [row for row in rows if per_training[_training(row)] == int(row["classes"])]


def _all_rows(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"'{path}' has columns {reader.fieldnames}; expected {list(COLUMNS)}. Move it away.")
        return list(reader)


def _training(row: Row) -> tuple[str, ...]:
    return tuple(row[k] for k in ("method", "variant", "options", "protocol", "classes", "seed", "steps", "size"))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A metric over seeds, of means over categories.

    Attributes:
        mean: Over seeds.
        spread: Standard deviation over seeds; NaN of one.
        seeds: How many.
    """

    mean: float
    spread: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.spread:.3f}" if self.seeds > 1 else f"{self.mean:.3f}"


def figures(rows: list[Row], metric: str, *by: str) -> dict[tuple[str, ...], Figure]:
    """Mean and spread of a metric for every combination of values in the columns `by`, in order of appearance.

    First the mean over the categories of one seed, as if they were one test; then mean and spread over seeds.

    Raises:
        ValueError: If there is no such column.
    """
    if unknown := sorted({metric, *by} - set(COLUMNS)):
        raise ValueError(f"studies have no columns {unknown}; they have {list(COLUMNS)}")
    groups: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in rows:
        seeds = groups.setdefault(tuple(row[k] for k in by), {})
        seeds.setdefault(row["seed"], []).append(float(row[metric]))
    found = {}
    for key, seeds in groups.items():
        means = [fmean(values) for values in seeds.values()]
        spread = stdev(means) if len(means) > 1 else math.nan
        found[key] = Figure(mean=fmean(means), spread=spread, seeds=len(means))
    return found


def table(rows: list[Row], *by: str, metrics: Sequence[str] = ("image_auroc", "pixel_auroc")) -> str:
    """A Markdown table: mean and spread over seeds of some metrics, one line per combination of values in `by`.

    Lines stand in order of appearance, or, if `by` has `steps`, short trainings before long ones.
    """
    found = [figures(rows, metric, *by) for metric in metrics]
    head = [*by, "seeds", *(metric.replace("_auroc", " AUROC").replace("aupro", "AUPRO") for metric in metrics)]
    keys = list(found[0])
    if "steps" in by:
        keys.sort(key=lambda key: int(key[by.index("steps")]))
    lines = [
        [*(value or "preset" for value in key), str(found[0][key].seeds), *(str(g[key]) for g in found)] for key in keys
    ]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))


def _train(trial: Trial, seed: int, part: Splits, classes: int, size: int) -> list[Row]:
    options = dict(trial.options) | ({"steps": max(trial.stops)} if trial.stops else {})
    model = methods.build(trial.method, seed=seed, **options)
    rows: list[Row] = []
    spent = 0.0

    def collect(history: History, seconds: float) -> None:
        for category in part.categories:
            result = evaluate(model, part.test.of(category)).metrics()
            measured = {k: result[k] for k in ("image_auroc", "pixel_auroc", "aupro")}
            found = {
                **{"method": trial.method, "variant": trial.variant, "options": _written(trial.options)},
                **{"protocol": trial.protocol, "classes": classes, "category": category, "seed": seed},
                "steps": len(history.rows),
                **{k: f"{v:.4f}" for k, v in measured.items()},
                **{"train_seconds": f"{seconds:.1f}", "size": size, "runtime": history.runtime},
            }
            rows.append({k: str(found[k]) for k in COLUMNS})

    def at_a_stop(history: History) -> None:
        nonlocal spent
        if len(history.rows) in trial.stops[:-1]:
            start = time.perf_counter()
            collect(history, history.seconds - spent)
            model.train()
            spent += time.perf_counter() - start

    history = fit(model, part.train, seed=seed, on_step=at_a_stop, progress=sys.stderr.isatty())
    collect(history, history.seconds - spent)
    return rows


def _done(rows: list[Row], trial: Trial, seed: int, part: Splits, classes: int, size: int) -> bool:
    key = {"method": trial.method, "variant": trial.variant, "options": _written(trial.options)}
    key |= {"protocol": trial.protocol, "classes": str(classes), "category": part.categories[-1]}
    key |= {"seed": str(seed), "size": str(size)}
    there = {row["steps"] for row in rows if all(row[k] == v for k, v in key.items())}
    return bool(there) and {str(stop) for stop in trial.stops} <= there


def _outdated(row: Row, trials: tuple[Trial, ...]) -> bool:
    """Whether the row's variant is one of the trials, but not with these options."""
    names = ("method", "variant", "protocol")
    options = [_written(t.options) for t in trials if all(getattr(t, name) == row[name] for name in names)]
    return bool(options) and row["options"] not in options


def _written(options: Mapping[str, Any]) -> str:
    """Options as a row keeps them, so that a variant that is defined anew is told from the old one."""
    return " ".join(f"{name}={value}" for name, value in sorted(options.items()))
