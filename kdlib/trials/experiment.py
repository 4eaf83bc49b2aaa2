"""Methods x categories x seeds: train, calibrate, evaluate, one row of numbers each. Can be killed and continued."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from kdlib import data as datasets
from kdlib import methods, viz
from kdlib.data.records import ImageSet, Splits
from kdlib.files import write_csv, write_text
from kdlib.runtime import processes, runtime
from kdlib.scoring.detector import Detector, calibrate
from kdlib.scoring.evaluation import METRICS, evaluate
from kdlib.scoring.saving import save
from kdlib.training.loop import History, fit
from kdlib.trials.speed import latency_ms, peak_memory_mb

# fmt: off
COLUMNS = (
    "method", "protocol", "category", "seed",
    "image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "aupro",
    "train_seconds", "train_images_per_second", "score_images_per_second", "latency_ms_p50",
    "parameters", "peak_memory_mb",
    "backbone", "weights", "size", "steps", "runtime", "threshold", "false_alarms", "recall",
)
# fmt: on
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all rows of one results folder share.

    Attributes:
        data: Root of a data set, or `workshop`, `mill`.
        layout: See `kdlib.data.load`.
        protocol: `single`, one model per category, or `multi`, one model for all.
        size: Working size in pixels.
        overrides: Fields of the methods' configurations.
        device: See `kdlib.runtime.runtime`.
        precision: See `kdlib.runtime.runtime`.
    """

    data: str
    layout: str = "auto"
    protocol: Literal["single", "multi"] = "single"
    size: int = 256
    overrides: dict[str, Any]
    device: str = "auto"
    precision: str = "auto"


def run(
    settings: Settings,
    names: list[str],
    categories: list[str] | None,
    seeds: list[int],
    out: Path,
    report: Callable[[Row], None],
) -> list[Row]:
    """Fills `out/metrics.csv`, one row per method, category and seed, and `out/CATEGORY/` with example maps.

    Rows that are there already are kept, and a training that was killed goes on where it was. What a set cannot give
    (image metrics without defects, pixel metrics without masks, any of them without test images) is NaN.

    Raises:
        ValueError: If the folder holds results of other settings.
    """
    for name in names:
        methods.preset(name)
    with processes().main_process_first():
        splits = datasets.load(settings.data, categories, layout=settings.layout, size=settings.size)
    _same_settings(out, settings, splits.categories)
    rows = _read_rows(out / "metrics.csv")
    for name, seed, part in product(names, seeds, _parts(splits, settings.protocol)):
        folder = _folder(out, settings, name, seed, part)
        done = {_key(row) for row in rows}
        if not all((name, category, seed) in done for category in part.categories):
            for row in _one(settings, name, seed, part, out, folder):
                rows = [r for r in rows if _key(r) != _key(row)] + [row]
                report(row)
            if processes().is_main_process:
                write_csv(out / "metrics.csv", COLUMNS, map(_rounded, rows))
        if processes().is_main_process:
            # Only now: a run killed before its rows were written must find its training here.
            shutil.rmtree(folder / "state", ignore_errors=True)
    return rows


def _one(settings: Settings, name: str, seed: int, splits: Splits, out: Path, folder: Path) -> Iterator[Row]:
    """Trains one model and yields a row per category that it was trained on."""
    model = methods.build(name, seed=seed, **settings.overrides)
    device, precision = settings.device, settings.precision
    history = fit(
        model,
        splits.train,
        seed=seed,
        device=device,
        precision=precision,
        state=folder / "state",
        progress=sys.stderr.isatty(),
    )
    if not processes().is_main_process:
        return
    detector = calibrate(model, splits.calib, device=device, precision=precision)
    save(detector, folder)
    for category in splits.categories:
        yield _row(settings, name, seed, category, splits.test.of(category), detector, history, out)


def _row(
    settings: Settings,
    name: str,
    seed: int,
    category: str,
    images: ImageSet,
    detector: Detector,
    history: History,
    out: Path,
) -> Row:
    metrics, speed, alarms = dict.fromkeys(METRICS, math.nan), math.nan, np.empty(0, dtype=bool)
    if len(images):
        result = evaluate(detector.model, images, device=settings.device, precision=settings.precision)
        metrics, speed = result.metrics(), len(images) / result.seconds
        alarms = detector.threshold.decide(result.scores)
        figure = viz.gallery(result, images, detector, columns=6)
        _save_figure(figure, out / category / f"{name.replace('/', '-')}-seed{seed}.png")
    how = runtime(settings.device, settings.precision)
    found: Row = {
        "method": name,
        "protocol": settings.protocol,
        "category": category,
        "seed": seed,
        **metrics,
        "train_seconds": history.seconds,
        "train_images_per_second": history.images_per_second,
        "score_images_per_second": speed,
        "latency_ms_p50": latency_ms(detector.model, images.size, how),
        "parameters": sum(p.numel() for p in detector.model.student_parameters()),
        "peak_memory_mb": peak_memory_mb(how.device),
        "backbone": detector.model.teacher.name,
        "weights": str(detector.model.teacher.weights),
        "size": settings.size,
        "steps": len(history.rows),
        "runtime": history.runtime,
        "threshold": detector.threshold.value,
        "false_alarms": _share(alarms[images.labels == 0]),
        "recall": _share(alarms[images.labels == 1]),
    }
    return {c: found[c] for c in COLUMNS}


def _parts(splits: Splits, protocol: str) -> list[Splits]:
    return [splits] if protocol == "multi" else [splits.of(category) for category in splits.categories]


def _folder(out: Path, settings: Settings, name: str, seed: int, part: Splits) -> Path:
    label = part.categories[0] if settings.protocol == "single" else "all"
    return out / "models" / f"{name.replace('/', '-')}-{label}-seed{seed}"


def _same_settings(out: Path, settings: Settings, categories: Sequence[str]) -> None:
    path, own = out / "settings.json", json.loads(json.dumps(asdict(settings)))
    if settings.protocol == "multi":  # one model for all: other categories make another model
        own["categories"] = list(categories)
    if path.exists() and any((out / part).exists() for part in ("metrics.csv", "models")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if differs := sorted(k for k in own.keys() | found.keys() if found.get(k) != own.get(k)):
            there, here = ({k: d.get(k) for k in differs} for d in (found, own))
            raise ValueError(
                f"'{out}' holds results with other settings: {there}, asked for {here}. Choose another --out."
            )
    elif processes().is_main_process:
        write_text(path, json.dumps(own, indent=2) + "\n")


def _read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"'{path}' has other columns than this version of kdlib writes; choose another --out")
        return list(reader)


def _rounded(row: Row) -> Row:
    return {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}


def _key(row: Row) -> tuple[str, str, int]:
    return row["method"], row["category"], int(row["seed"])


def _share(decisions: Any) -> float:
    return float(decisions.mean()) if len(decisions) else float("nan")


def _save_figure(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(beside, format="png", dpi=110)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
        plt.close(figure)
