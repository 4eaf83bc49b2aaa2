"""What `run` leaves besides numbers: detectors, example maps, and what they cost to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from kdlib import viz
from kdlib.contract import Distiller
from kdlib.data.records import ImageSet
from kdlib.files import write_beside, write_tensors
from kdlib.runtime import choose
from kdlib.scoring.detector import Detector, calibrate
from kdlib.scoring.result import Result
from kdlib.scoring.saving import halved, save
from kdlib.trials.names import folder_name
from kdlib.trials.speed import peak_memory_mb
from kdlib.trials.trial import Trial, scoring

WEIGHTS = "weights.safetensors"
TRIALS, MODELS, TABLE, SETTINGS = "trials", "models", "metrics.csv", "settings.json"
"""What a results folder holds besides a folder of example maps for each category."""


def examples(images: ImageSet) -> list[int]:
    """Positions of the images whose maps are drawn."""
    return viz.examples(images.samples, 6)


def detector(trial: Trial, model: Distiller, part: str, maps: str, out: Path | None) -> Detector:
    """Calibrates a trained model, for normal maps on the one category, and saves it below `out/models/`, if given."""
    images = trial.splits.calib if maps == "plain" else trial.splits.calib.of(part)
    calibrated = calibrate(model, images, **scoring(maps), device=trial.device, precision=trial.precision)
    if out:
        folder = save(calibrated, folder_of(trial, part, out), note=note_of(trial, part))
        if model.product:
            weights = model.get_submodule(model.product).state_dict()
            write_tensors(folder / WEIGHTS, {name: halved(tensor) for name, tensor in weights.items()}, {})
    return calibrated


def folder_of(trial: Trial, part: str, out: Path) -> Path:
    """Where the detector of a category, or of all categories, is saved."""
    return out / MODELS / model_name(trial.recipe.method, part, trial.seed)


def note_of(trial: Trial, part: str) -> dict[str, Any]:
    """What a saved detector says about the training that made it."""
    return {**trial.key, "part": part}


def model_name(method: str, part: str, seed: int) -> str:
    """Name of a detector's folder; `part` is a category, or `all`."""
    product = folder_name(f"{method.replace('/', '-')}-{part}")
    return f"{product}-seed{seed}"


def student(trial: Trial, model: Distiller, folder: Path) -> None:
    """Saves a finished student in half precision; its threshold is for plain maps of all its categories."""
    calibrated = calibrate(model, trial.splits.calib, device=trial.device, precision=trial.precision)
    save(calibrated, folder / trial.recipe.method.partition("/")[0], half=True)


def columns(trial: Trial, detector: Detector, images: ImageSet, result: Result | None) -> dict[str, Any]:
    """What a row says about a detector; `result` is its evaluation on the images, `None` where there are none."""
    runtime = choose(trial.device, trial.precision)
    alarms = detector.threshold.decide(result.scores) if result else np.empty(0, dtype=bool)
    shares = {}
    for name, label in (("false_alarms", 0), ("recall", 1)):
        decided = alarms[images.labels == label]
        shares[name] = float(decided.mean()) if len(decided) else float("nan")
    return {
        "score_images_per_second": len(images) / result.seconds if result else float("nan"),
        "peak_memory_mb": peak_memory_mb(runtime.device),
        "threshold": detector.threshold.value,
        **shares,
    }


def draw(trial: Trial, detector: Detector, category: str, images: ImageSet, result: Result | None, out: Path) -> None:
    """Draws the test images whose maps were kept into a folder of the category's name."""
    if result is None:
        return
    figure = viz.gallery(result, images, detector, chosen=examples(images))
    folder = out / folder_name(category, reserved=(TRIALS, MODELS, TABLE, SETTINGS))
    path = folder / f"{trial.recipe.method.replace('/', '-')}-seed{trial.seed}.png"
    try:
        write_beside(path, lambda beside: figure.savefig(beside, format="png", dpi=110))
    finally:
        plt.close(figure)


def draw_features(detector: Detector, image: Path, level: int, channels: int, path: Path) -> Path:
    """Draws the features of teacher and student for an image file; see `kdlib.viz.features`."""
    figure = viz.features(detector, image, level=level, channels=channels, title=image.name)
    try:
        write_beside(path, lambda beside: figure.savefig(beside, format="png", dpi=110))
    finally:
        plt.close(figure)
    return path
