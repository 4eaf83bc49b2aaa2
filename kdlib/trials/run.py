"""`run`: methods x categories x seeds into one results folder, with detectors and example maps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kdlib.data.auxiliary import load_auxiliary
from kdlib.files import write_text
from kdlib.methods import own_name
from kdlib.runtime import choose, processes
from kdlib.scoring.evaluation import METRICS
from kdlib.trials import images
from kdlib.trials.outputs import SETTINGS, TABLE, TRIALS
from kdlib.trials.runner import Report, carry_out, check, recommended
from kdlib.trials.store import Store
from kdlib.trials.trial import Protocol, Recipe, Trial, scoring, trials

_SPEED = ("train_seconds", "train_images_per_second", "score_images_per_second", "latency_ms_p50")
_SETTING = ("backbone", "weights", "size", "steps", "runtime", "threshold", "false_alarms", "recall")
COLUMNS = dict.fromkeys(
    (
        *("method", "protocol", "category", "seed", *METRICS, *_SPEED, "parameters", "peak_memory_mb"),
        *(*_SETTING, "variant", "options", "classes", "maps", "megabytes", "data"),
    ),
    ".6g",
)
"""Columns of `metrics.csv`, each with the format of its fractions."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all rows of one results folder share; `layout` and `white` as of `kdlib.data.load`."""

    data: str  # root of a data set, or `workshop`, `mill`
    layout: str = "auto"
    white: int | None = None
    protocol: Protocol = "single"  # one model per category, or `multi`: one for all
    maps: str = "auto"  # see `kdlib.trials.trial.scoring`; auto: `kdlib.trials.runner.recommended`
    size: int = 256  # working height and width in pixels
    overrides: dict[str, Any]  # fields of the methods' configurations
    device: str = "auto"
    precision: str = "auto"
    auxiliary: str | None = None  # images of something else, by name; see `kdlib.data.auxiliary`


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
    for name in dict.fromkeys(map(own_name, names)):
        maps = recommended(name, settings.overrides) if settings.maps == "auto" else settings.maps
        scoring(maps)
        recipes.append(Recipe(method=name, protocol=settings.protocol, options=settings.overrides, maps=(maps,)))
    choose(settings.device, settings.precision)
    if settings.auxiliary:
        load_auxiliary(settings.auxiliary, (settings.size, settings.size))
    where = {name: getattr(settings, name) for name in ("device", "precision", "auxiliary")}
    chosen = None if categories is None else list(dict.fromkeys(categories))
    splits = images.load(settings.data, chosen, layout=settings.layout, size=settings.size, white=settings.white)
    store = Store(out / TABLE, out / TRIALS, COLUMNS)
    prints = images.fingerprints(splits)
    wanted: list[Trial] = []
    for recipe in recipes:
        for seed in dict.fromkeys(seeds):
            wanted += trials(recipe, seed, splits, prints, **where)
    check(wanted, store)
    if processes().is_main_process:
        _same_settings(out / SETTINGS, store, settings, splits.categories)
    return carry_out(wanted, store, report, out)


def _same_settings(path: Path, store: Store, settings: Settings, categories: Sequence[str]) -> None:
    """Refuses a folder with results of other settings, whose detectors would be written over; notes these in it."""
    own = json.loads(json.dumps(asdict(settings))) | {"data": images.normalised(settings.data)}
    if settings.protocol == "multi":  # one model for all: other categories make another model
        own["categories"] = list(categories)
    if not path.exists() or not store.has_results():
        write_text(path, json.dumps(own, indent=2) + "\n")
        return
    former = _read_settings(path)
    if differing := sorted(name for name in own.keys() | former.keys() if former.get(name) != own.get(name)):
        there, here = ({name: values.get(name) for name in differing} for values in (former, own))
        raise ValueError(
            f"'{path.parent}' holds results with other settings: {there}, asked for {here}. Choose another --out."
        )


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"'{path}' is damaged ({error}); restore it, or choose another --out") from error
