"""What `run` leaves besides numbers: detectors, example maps, and what they cost to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from kdlib import viz
from kdlib.contract import Distiller
from kdlib.data.records import ImageSet
from kdlib.files import write_beside
from kdlib.runtime import choose
from kdlib.scoring.detector import Detector, calibrate
from kdlib.scoring.evaluation import Result, evaluate
from kdlib.scoring.saving import save
from kdlib.trials.names import folder_name
from kdlib.trials.speed import latency_ms, peak_memory_mb
from kdlib.trials.trial import Trial

TRIALS, MODELS, TABLE, SETTINGS = "trials", "models", "metrics.csv", "settings.json"
"""What a results folder holds besides a folder of example maps for each category."""

_EXAMPLES = 6


class Outputs:
    """The results folder of a run.

    Args:
        out: The folder.
    """

    def __init__(self, out: Path) -> None:
        self.out = out

    def detector(self, trial: Trial, model: Distiller) -> Detector:
        """Calibrates a trained model and saves it below `models/`."""
        detector = calibrate(model, trial.splits.calib, device=trial.device, precision=trial.precision)
        part = "all" if trial.recipe.protocol == "multi" else trial.categories[0]
        save(detector, self.out / MODELS / folder_name(f"{_plain(trial.recipe.method)}-{part}-seed{trial.seed}"))
        return detector

    def evaluated(self, trial: Trial, detector: Detector, images: ImageSet) -> Result:
        """Evaluates a detector; of the maps, only those of the examples are kept."""
        return evaluate(
            detector,
            images,
            keep=viz.examples(images.samples, _EXAMPLES),
            device=trial.device,
            precision=trial.precision,
        )

    def columns(self, trial: Trial, detector: Detector, images: ImageSet, result: Result | None) -> dict[str, Any]:
        """What a row says about a detector; `result` is its evaluation on the images, `None` where there are none."""
        runtime = choose(trial.device, trial.precision)
        alarms = np.empty(0, dtype=bool) if result is None else detector.threshold.decide(result.scores)
        return {
            "score_images_per_second": float("nan") if result is None else len(images) / result.seconds,
            "latency_ms_p50": latency_ms(detector.model, images.size, runtime),
            "peak_memory_mb": peak_memory_mb(runtime.device),
            "threshold": detector.threshold.value,
            "false_alarms": _share(alarms[images.labels == 0]),
            "recall": _share(alarms[images.labels == 1]),
        }

    def examples(self, trial: Trial, detector: Detector, category: str, images: ImageSet, result: Result) -> None:
        """Draws the test images whose maps were kept into a folder of the category's name."""
        figure = viz.gallery(result, images, detector, chosen=viz.examples(images.samples, _EXAMPLES))
        folder = self.out / folder_name(category, reserved=(TRIALS, MODELS, TABLE, SETTINGS))
        _save(figure, folder / f"{_plain(trial.recipe.method)}-seed{trial.seed}.png")


def _plain(method: str) -> str:
    return method.replace("/", "-")


def _share(decisions: NDArray[np.bool_]) -> float:
    return float(decisions.mean()) if len(decisions) else float("nan")


def _save(figure: Figure, path: Path) -> None:
    try:
        write_beside(path, lambda beside: figure.savefig(beside, format="png", dpi=110))
    finally:
        plt.close(figure)
