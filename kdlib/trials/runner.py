"""The engine of `run` and of studies: whatever trials are missing, one after the other, each kept as it ends."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate.utils import broadcast_object_list

from kdlib import methods
from kdlib.contract import Distiller
from kdlib.data.auxiliary import load_auxiliary
from kdlib.files import write_text
from kdlib.runtime import choose, processes
from kdlib.scoring.detector import FEWEST, Detector
from kdlib.scoring.evaluation import METRICS, Keep, evaluate
from kdlib.scoring.saving import halved
from kdlib.training.loop import History, fit
from kdlib.trials import outputs, table
from kdlib.trials.names import printable
from kdlib.trials.speed import forget_peak, latency_ms
from kdlib.trials.store import Claim, Store
from kdlib.trials.trial import Recipe, Trial

Report = Callable[[str], None]
Row = dict[str, Any]

PUBLISHED = ("mvtec", "vit")
"""Presets of the papers' scale; all others are ours."""


def check(trials: Sequence[Trial], store: Store) -> None:
    """Builds every method that is to be trained once and reads every image once.

    Raises:
        ValueError: If a method does not work at this size, or a file is damaged.
    """
    checked: list[tuple[Recipe, tuple[int, int]]] = []
    seen: set[str] = set()
    for trial in trials:
        if store.state(trial) == "done":
            continue
        network = (trial.recipe, trial.splits.train.size)
        if network not in checked:
            _check_method(*network)
            checked.append(network)
        for category in trial.categories:
            normal = len(trial.splits.calib.of(category))
            if trial.recipe.maps != ("plain",) and normal < FEWEST:
                raise ValueError(
                    f"'{category}' has {normal} calibration images; normal maps need {FEWEST} or more: take plain maps "
                    "(--maps plain), or add normal images"
                )
            if category not in seen and processes().is_main_process:
                trial.splits.of(category).check()
                seen.add(category)


def recommended(method: str, options: Mapping[str, Any]) -> str:
    """How a method's maps are best scored: as it recommends, but normal where they are no distances of features.

    A paper's preset, such as `rd/mvtec`, is scored as published.
    """
    if method.partition("/")[2] in PUBLISHED:
        return "plain"
    model = methods.make(method, methods.configure(method, **options))
    return model.recommended if model.whitens else "normal"


def _check_method(recipe: Recipe, size: tuple[int, int]) -> None:
    """Sends one empty image through the untrained method."""
    model = methods.make(recipe.method, recipe.config()).eval()
    image = torch.zeros(1, 3, *size)
    if not model.whitens and any(maps.startswith("whitened") for maps in recipe.maps):
        raise ValueError(
            f"maps of '{recipe.method}' with these options are no distances between features; take --maps normal"
        )
    with torch.inference_mode():
        model.image_score(torch.zeros(1, 1, *size))
        if recipe.method.partition("/")[0] in methods.BASELINES:
            model.teacher(image)  # a baseline has no maps before it has seen normal images
        else:
            model.anomaly_map(image)


def carry_out(
    trials: Sequence[Trial], store: Store, report: Report, out: Path | None = None, students: Path | None = None
) -> pd.DataFrame:
    """Carries out the trials that are not done, and returns all rows of the table.

    Several processes may work on the trials of one table: each takes those that no other is at work on. `report` is
    called with a line of text per row; detectors and example maps go to the folder `out`, where there is one, and
    finished students of all categories, of seed 0, to `students`.

    Raises:
        ValueError: If a training fails or a file of the store is damaged.
    """
    main = processes().is_main_process
    for trial in trials:
        with claimed(store, trial) as claim:
            if claim == "busy" and main:
                report(f"skipped {trial}: another process is at work on it")
            if claim != "free":
                continue
            if main and store.state(trial) == "changed":
                report(f"again {trial}: its options, images or teacher have changed")
            rows = _one(trial, store.work(trial), out, students)
            if main:
                store.keep(trial, rows)
                for row in rows:
                    report(table.line(row))
    return store.gather() if main else pd.DataFrame()


@contextmanager
def claimed(store: Store, trial: Trial) -> Iterator[Claim]:
    """Takes a trial: the first process for all that share this run; the others are told."""
    if not processes().is_main_process:
        told: list[Any] = [None]
        broadcast_object_list(told)
        yield told[0]
        return
    with store.claim(trial) as claim:
        broadcast_object_list([claim])
        yield claim


def _one(trial: Trial, work: Path, out: Path | None, students: Path | None) -> list[Row]:
    """Trains one model; a row for every stop and category."""
    forget_peak(choose(trial.device, trial.precision).device)
    model = methods.build(trial.recipe.method, seed=trial.seed, **trial.recipe.settings())
    stops = Stops(trial, model, work / "stops.json")
    history = train(trial, model, work, stops)
    if not processes().is_main_process:
        return []
    if trial.recipe.half:
        model.load_trained({name: halved(t).to(t.dtype) for name, t in model.trained_tensors().items()})
    is_student = trial.recipe.method.partition("/")[0] in methods.METHODS
    if students and is_student and trial.recipe.protocol == "multi" and trial.seed == 0:
        outputs.student(trial, model, students)
    return stops.rows() + measured(trial, model, history, stops.training_seconds(history), out)


def train(trial: Trial, model: Distiller, work: Path, on_step: Callable[[History], None] | None = None) -> History:
    """Trains a trial's fresh model, or goes on with it after a kill; `work` keeps how far it got."""
    return fit(
        model,
        trial.splits.train,
        auxiliary=load_auxiliary(trial.auxiliary, trial.splits.train.size) if trial.auxiliary else None,
        seed=trial.seed,
        device=trial.device,
        precision=trial.precision,
        state=work / "training",
        progress=sys.stderr.isatty(),
        on_step=on_step,
    )


def part_of(trial: Trial, category: str, maps: str) -> str:
    """Whose calibration images make a category's detector: what is normal at a place depends on the product."""
    return trial.part if maps == "plain" else category


def measured(trial: Trial, model: Distiller, history: History, seconds: float, out: Path | None = None) -> list[Row]:
    """Evaluates a model on every category; `seconds` is how long it has been trained, `out` as for `carry_out`."""
    latency = latency_ms(model, trial.splits.train.size, choose(trial.device, trial.precision))
    detectors: dict[tuple[str, str], Detector] = {}
    rows = []
    for category, maps in product(trial.categories, trial.recipe.maps):
        images = trial.splits.test.of(category)
        part = part_of(trial, category, maps)
        if (part, maps) not in detectors and (out or maps != "plain"):
            detectors[part, maps] = outputs.detector(trial, model, part, maps, out)
        detector, result = detectors.get((part, maps)), None
        if len(images):
            keep: Keep = outputs.examples(images) if out else "auto"
            result = evaluate(detector or model, images, keep=keep, device=trial.device, precision=trial.precision)
        row = {
            **trial.columns(),
            "maps": maps,
            "category": printable(category),
            "steps": len(history.rows),
            "latency_ms_p50": latency,
            "megabytes": 2e-6 * sum(tensor.numel() for tensor in model.trained_tensors().values()),
            **(result.metrics() if result else dict.fromkeys(METRICS, math.nan)),
            "train_seconds": seconds,
            "train_images_per_second": history.images_per_second,
            "runtime": history.runtime,
            "parameters": sum(p.numel() for p in model.student_parameters()),
            "backbone": model.teacher.name,
            "weights": printable(str(model.teacher.weights)),
            "data": trial.data[category],
        }
        if out and detector:
            row |= outputs.columns(trial, detector, images, result)
            outputs.draw(trial, detector, category, images, result, out)
        rows.append(row)
    return rows


class Stops:
    """Evaluates a model at the stops before the end of its training; a callback for `fit`.

    What was measured is kept in a file, so that a training that goes on after a kill does not lose it.
    """

    def __init__(self, trial: Trial, model: Distiller, path: Path) -> None:
        self.trial, self.model, self.path = trial, model, path
        self._measured = _kept(path) if path.exists() else {}

    def __call__(self, history: History) -> None:
        step, stops = len(history.rows), self.trial.recipe.stops
        if step in stops and step < max(stops) and processes().is_main_process:
            start, training = time.perf_counter(), self.model.training
            rows = measured(self.trial, self.model, history, self.training_seconds(history))
            self.model.train(training)
            self._measured[step] = {"rows": rows, "seconds": time.perf_counter() - start}
            write_text(self.path, json.dumps(self._measured))

    def training_seconds(self, history: History) -> float:
        """How long training has taken, without the evaluations at earlier stops."""
        before = [stop["seconds"] for step, stop in self._measured.items() if step < len(history.rows)]
        return history.seconds - sum(before)

    def rows(self) -> list[Row]:
        """The rows of all stops so far, short trainings first."""
        return [row for step in sorted(self._measured) for row in self._measured[step]["rows"]]


def _kept(path: Path) -> dict[int, dict[str, Any]]:
    """What was measured at each stop: its rows, and how many seconds that took."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kept = {int(step): {"rows": list(s["rows"]), "seconds": float(s["seconds"])} for step, s in content.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"'{path}' is damaged ({error}); delete '{path.parent}' to train this trial anew") from error
    return kept
