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
from kdlib.trials.outputs import MODELS, SETTINGS, TABLE, TRIALS
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
    """What all rows of one results folder share.

    Attributes:
        data: Root of a data set, or `workshop`, `mill`, which kdlib renders itself.
        layout: How the set lies on disk: `auto`, or the name of a layout, see data/README.md.
        white: White level of 16-bit grey files, such as 1023 or 4095; none: 65535.
        protocol: `single`: a model per category; `multi`: one for all.
        maps: How level maps are scored: `plain`, as published; `normal`, divided by normal maps; `whitened`; or `auto`,
            what suits the method, for a paper's preset `plain`. Settings follow after a blank: `normal floor=1.0`.
        size: Working height and width in pixels.
        overrides: Fields of the methods' configurations.
        device: Where it runs: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
        precision: Type of the convolutions: `auto`, `fp32`, `bf16` or `fp16`.
        auxiliary: Images of something else, where a method wants them: `textures`, `photographs`, or a folder; A+B for
            several; none: textures.
    """

    data: str
    layout: str = "auto"
    white: int | None = None
    protocol: Protocol = "single"
    maps: str = "auto"
    size: int = 256
    overrides: dict[str, Any]
    device: str = "auto"
    precision: str = "auto"
    auxiliary: str | None = None

    def recipe(self, method: str) -> Recipe:
        """How a method is trained and scored.

        Raises:
            ValueError: If the method, an option or the kind of maps is unknown or does not fit.
        """
        maps = recommended(method, self.overrides) if self.maps == "auto" else self.maps
        scoring(maps)
        return Recipe(method=method, protocol=self.protocol, options=self.overrides, maps=(maps,))


def planned(
    settings: Settings, names: Sequence[str], categories: Sequence[str] | None, seeds: Sequence[int]
) -> list[Trial]:
    """One trial per method, seed and, in single-class training, category.

    Raises:
        ValueError: If a method, an option or the images do not fit.
    """
    recipes = [settings.recipe(name) for name in dict.fromkeys(map(own_name, names))]
    choose(settings.device, settings.precision)
    if settings.auxiliary:
        load_auxiliary(settings.auxiliary, (settings.size, settings.size))
    where = {name: getattr(settings, name) for name in ("device", "precision", "auxiliary")}
    chosen = None if categories is None else list(dict.fromkeys(categories))
    splits = images.load(settings.data, chosen, layout=settings.layout, size=settings.size, white=settings.white)
    prints = images.fingerprints(splits)
    wanted: list[Trial] = []
    for recipe in recipes:
        for seed in dict.fromkeys(seeds):
            wanted += trials(recipe, seed, splits, prints, **where)
    return wanted


def opened(out: Path, wanted: Sequence[Trial], settings: Settings) -> Store:
    """The store of a results folder, when everything was checked that the trials need.

    Raises:
        ValueError: If a method does not work at this size, an image is damaged, or the folder holds results of other
            settings.
    """
    store = Store(out / TABLE, out / TRIALS, COLUMNS)
    check(wanted, store)
    if processes().is_main_process:
        categories = list(dict.fromkeys(category for trial in wanted for category in trial.categories))
        _same_settings(out / SETTINGS, store, settings, categories)
    return store


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
    wanted = planned(settings, names, categories, seeds)
    return carry_out(wanted, opened(out, wanted, settings), report, out)


def _same_settings(path: Path, store: Store, settings: Settings, categories: Sequence[str]) -> None:
    """Refuses a folder with results of other settings, whose detectors would be written over; notes these in it."""
    own = json.loads(json.dumps(asdict(settings))) | {"data": images.normalised(settings.data)}
    if settings.protocol == "multi":  # one model for all: other categories make another model
        own["categories"] = list(categories)
    if not path.exists() or not (store.has_results() or (path.parent / MODELS).exists()):
        write_text(path, json.dumps(own, indent=2) + "\n")
        return
    former = read_settings(path)
    if differing := sorted(
        name for name in (own.keys() | former.keys()) - {"device"} if former.get(name) != own.get(name)
    ):
        there, here = ({name: values.get(name) for name in differing} for values in (former, own))
        raise ValueError(
            f"'{path.parent}' holds results with other settings: {there}, asked for {here}. Choose another --out."
        )


def read_settings(path: Path) -> dict[str, Any]:
    """What a results folder was filled with; data in one spelling.

    Raises:
        ValueError: If the file is damaged.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"'{path}' is damaged ({error}); restore it, or choose another --out") from error
