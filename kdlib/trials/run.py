"""`run`: methods x categories x seeds into one results folder, with detectors and example maps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kdlib.data.records import Splits
from kdlib.files import write_text
from kdlib.runtime import choose, processes
from kdlib.scoring.evaluation import METRICS
from kdlib.trials import checks, images
from kdlib.trials.outputs import SETTINGS, TABLE, TRIALS, Outputs
from kdlib.trials.runner import Report, carry_out
from kdlib.trials.store import Store
from kdlib.trials.trial import Protocol, Recipe, Trial

_TEXTS = ("method", "protocol", "category", "seed")
_SPEED = ("train_seconds", "train_images_per_second", "score_images_per_second", "latency_ms_p50")
_SETTING = ("backbone", "weights", "size", "steps", "runtime", "threshold", "false_alarms", "recall")
_ORIGIN = ("variant", "options", "classes", "data")
COLUMNS = dict.fromkeys(
    (*_TEXTS, *METRICS, *_SPEED, "parameters", "peak_memory_mb", *_SETTING, *_ORIGIN),
    ".6g",
)
"""Columns of `metrics.csv`, each with the format of its fractions."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all rows of one results folder share.

    Attributes:
        data: Root of a data set, or `workshop`, `mill`.
        layout: See `kdlib.data.load`.
        protocol: `single`, one model per category, or `multi`, one model for all.
        size: Working size in pixels.
        overrides: Fields of the methods' configurations.
        device: See `kdlib.runtime`.
        precision: See `kdlib.runtime`.
    """

    data: str
    layout: str = "auto"
    protocol: Protocol = "single"
    size: int = 256
    overrides: dict[str, Any]
    device: str = "auto"
    precision: str = "auto"


def run(
    settings: Settings,
    names: Sequence[str],
    categories: Sequence[str] | None,
    seeds: Sequence[int],
    out: Path,
    report: Report,
) -> pd.DataFrame:
    """Fills `out/metrics.csv`, one row per method, category and seed, and `out/CATEGORY/` with example maps.

    Trials that are done are kept, and a training that was killed goes on where it was. Trials whose images changed are
    carried out again. What a set cannot give (image metrics without defects, pixel metrics without masks, any of them
    without test images) is NaN. Returns all rows of `metrics.csv`.

    Raises:
        ValueError: If a method, an option, the images or their size do not fit, before anything is trained; or if the
            folder holds results of other settings.
    """
    recipes = []
    for name in dict.fromkeys(names):
        recipe = Recipe(method=name, protocol=settings.protocol, options=settings.overrides)
        recipe.config()
        recipes.append(recipe)
    choose(settings.device, settings.precision)
    chosen = None if categories is None else list(dict.fromkeys(categories))
    splits = images.load(settings.data, chosen, layout=settings.layout, size=settings.size)
    store = Store(out / TABLE, out / TRIALS, COLUMNS)
    trials = _trials(settings, recipes, list(dict.fromkeys(seeds)), splits)
    checks.check([trial for trial in trials if not store.done(trial)])
    _same_settings(out / SETTINGS, store, settings, splits.categories)
    return carry_out(trials, store, report, Outputs(out))


def _trials(settings: Settings, recipes: Sequence[Recipe], seeds: Sequence[int], splits: Splits) -> list[Trial]:
    data = images.fingerprints(splits)
    parts = [splits] if settings.protocol == "multi" else [splits.of(category) for category in splits.categories]
    trials = []
    for recipe in recipes:
        for seed in seeds:
            for part in parts:
                trial = Trial(
                    recipe=recipe,
                    seed=seed,
                    splits=part,
                    classes=len(part.categories),
                    data=data,
                    device=settings.device,
                    precision=settings.precision,
                )
                trials.append(trial)
    return trials


def _same_settings(path: Path, store: Store, settings: Settings, categories: Sequence[str]) -> None:
    """Refuses a folder with results of other settings, whose detectors would be written over; notes these in it."""
    own = json.loads(json.dumps(asdict(settings))) | {"data": images.normalised(settings.data)}
    if settings.protocol == "multi":  # one model for all: other categories make another model
        own["categories"] = list(categories)
    if not processes().is_main_process:
        return
    if path.exists() and store.has_results():
        former = _read_settings(path)
        differing = sorted(name for name in own.keys() | former.keys() if former.get(name) != own.get(name))
        if differing:
            there = {name: former.get(name) for name in differing}
            here = {name: own.get(name) for name in differing}
            raise ValueError(
                f"'{path.parent}' holds results with other settings: {there}, asked for {here}. Choose another --out."
            )
    else:
        write_text(path, json.dumps(own, indent=2) + "\n")


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged ({error}); restore it, or choose another --out") from error
    if not isinstance(content, dict):
        raise ValueError(f"'{path}' holds {content!r}, expected settings by name; restore it, or choose another --out")
    if isinstance(content.get("data"), str):
        content["data"] = images.normalised(content["data"])
    return content
