"""The engine of `run` and of studies: whatever trials are missing, one after the other, each kept as it ends."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from accelerate.utils import broadcast_object_list

from kdlib import methods
from kdlib.contract import Distiller
from kdlib.files import write_text
from kdlib.runtime import processes
from kdlib.scoring.evaluation import METRICS, Result, evaluate
from kdlib.training.loop import History, fit
from kdlib.trials import table
from kdlib.trials.names import printable
from kdlib.trials.outputs import Outputs
from kdlib.trials.store import Claim, Store
from kdlib.trials.trial import Trial

Report = Callable[[str], None]
Row = dict[str, Any]


def carry_out(trials: Sequence[Trial], store: Store, report: Report, outputs: Outputs | None = None) -> pd.DataFrame:
    """Carries out the trials that are not done, and returns all rows of the table.

    Several processes may work on the trials of one table: each takes those that no other is at work on.

    Args:
        trials: What is wanted, in this order.
        store: Where trials are kept.
        report: Is called with a line of text per row, and per trial that another process is at work on.
        outputs: Where detectors and example maps go; `None`: there are none.

    Raises:
        ValueError: If a training fails or a file of the store is damaged.
    """
    main = processes().is_main_process
    for trial in trials:
        with _claimed(store, trial) as claim:
            if claim == "busy" and main:
                report(f"skipped {trial}: another process is at work on it")
            if claim != "free":
                continue
            if main and store.changed(trial):
                report(f"again {trial}: its options, images or teacher have changed")
            rows = _one(trial, store.work(trial), outputs)
            if main:
                store.keep(trial, rows)
                for row in rows:
                    report(table.line(row))
    return store.gather() if main else pd.DataFrame()


@contextmanager
def _claimed(store: Store, trial: Trial) -> Iterator[Claim]:
    """The first process takes a trial for all that share this run; the others are told."""
    if not processes().is_main_process:
        told: list[Any] = [None]
        broadcast_object_list(told)
        yield told[0]
        return
    with store.claim(trial) as claim:
        broadcast_object_list([claim])
        yield claim


def _one(trial: Trial, work: Path, outputs: Outputs | None) -> list[Row]:
    """Trains one model; a row for every stop and category."""
    model = methods.build(trial.recipe.method, seed=trial.seed, **trial.recipe.settings())
    stops = Stops(trial, model, work / "stops.json")
    history = fit(
        model,
        trial.splits.train,
        seed=trial.seed,
        device=trial.device,
        precision=trial.precision,
        state=work / "training",
        progress=sys.stderr.isatty(),
        on_step=stops,
    )
    if not processes().is_main_process:
        return []
    if outputs is None:
        return stops.rows() + measured(trial, model, history, stops.training_seconds(history))
    return stops.rows() + _with_outputs(trial, model, history, outputs)


def measured(trial: Trial, model: Distiller, history: History, seconds: float) -> list[Row]:
    """Evaluates a model on every category; `seconds` is how long it has been trained."""
    rows = []
    for category in trial.categories:
        images = trial.splits.test.of(category)
        result = None
        if len(images):
            result = evaluate(model, images, device=trial.device, precision=trial.precision)
        rows.append(_row(trial, model, history, category, result) | {"train_seconds": seconds})
    return rows


def _with_outputs(trial: Trial, model: Distiller, history: History, outputs: Outputs) -> list[Row]:
    detector = outputs.detector(trial, model)
    rows = []
    for category in trial.categories:
        images = trial.splits.test.of(category)
        result = outputs.evaluated(trial, detector, images) if len(images) else None
        row = _row(trial, model, history, category, result)
        rows.append(row | outputs.columns(trial, detector, images, result))
        if result is not None:
            outputs.examples(trial, detector, category, images, result)
    return rows


def _row(trial: Trial, model: Distiller, history: History, category: str, result: Result | None) -> Row:
    metrics = dict.fromkeys(METRICS, math.nan) if result is None else result.metrics()
    return {
        **trial.columns(),
        "category": printable(category),
        "steps": len(history.rows),
        **metrics,
        "train_seconds": history.seconds,
        "train_images_per_second": history.images_per_second,
        "runtime": history.runtime,
        "parameters": sum(p.numel() for p in model.student_parameters()),
        "backbone": model.teacher.name,
        "weights": printable(str(model.teacher.weights)),
        "data": trial.data[category],
    }


class Stops:
    """Evaluates a model at the stops before the end of its training; a callback for `fit`.

    What was measured is kept in a file, so that a training that goes on after a kill does not lose it.

    Args:
        trial: Whose stops.
        model: Being trained; evaluating leaves it in training mode.
        path: The file.
    """

    def __init__(self, trial: Trial, model: Distiller, path: Path) -> None:
        self.trial, self.model, self.path = trial, model, path
        self._measured: dict[str, dict[str, Any]] = _kept(path)

    def __call__(self, history: History) -> None:
        step = len(history.rows)
        if step not in self.trial.recipe.stops or step == max(self.trial.recipe.stops):
            return
        if processes().is_main_process:
            start, training = time.perf_counter(), self.model.training
            rows = measured(self.trial, self.model, history, self.training_seconds(history))
            self.model.train(training)
            self._measured[str(step)] = {"rows": rows, "seconds": time.perf_counter() - start}
            write_text(self.path, json.dumps(self._measured))

    def training_seconds(self, history: History) -> float:
        """How long training has taken, without the evaluations at earlier stops."""
        step = len(history.rows)
        return history.seconds - sum(stop["seconds"] for name, stop in self._measured.items() if int(name) < step)

    def rows(self) -> list[Row]:
        """The rows of all stops so far, short trainings first."""
        steps = sorted(self._measured, key=int)
        return [row for step in steps for row in self._measured[step]["rows"]]


def _kept(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        for step, stop in content.items():
            int(step), float(stop["seconds"]), list(stop["rows"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"'{path}' is damaged ({error}); delete '{path.parent}' to train this trial anew") from error
    return dict(content)
