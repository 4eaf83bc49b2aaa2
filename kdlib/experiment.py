"""Methods x categories x seeds: train, calibrate, evaluate, and one row of numbers for each. Can be killed and continued."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib.pyplot as plt
from accelerate import PartialState

from kdlib import datasets, methods, viz
from kdlib.bench import latency_ms, peak_memory_mb
from kdlib.datasets.records import ImageSet, Splits
from kdlib.detector import Detector, calibrate, save, write_text
from kdlib.evaluate import evaluate, per_category
from kdlib.runtime import runtime
from kdlib.train import History, fit

COLUMNS = [
    "method",
    "protocol",
    "category",
    "seed",
    "image_auroc",
    "image_ap",
    "image_f1max",
    "pixel_auroc",
    "pixel_ap",
    "aupro",
    "train_seconds",
    "train_images_per_second",
    "score_images_per_second",
    "latency_ms_p50",
    "parameters",
    "peak_memory_mb",
    "backbone",
    "weights",
    "size",
    "steps",
    "runtime",
    "threshold",
    "false_alarms",
    "recall",
]
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What all rows of one results folder share.

    Attributes:
        data: Root of a data set, or ``workshop``.
        layout: See :func:`kdlib.datasets.load`.
        protocol: ``single``, one model per category, or ``multi``, one model for all.
        size: Working size in pixels.
        overrides: Fields of the methods' configurations.
        device: See :func:`kdlib.runtime.runtime`.
        precision: See :func:`kdlib.runtime.runtime`.
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
    """Fills ``out/metrics.csv``, one row per method, category and seed, and ``out/CATEGORY/`` with example maps.

    Rows that are there already are kept, and a training that was killed goes on where it was.

    Raises:
        ValueError: If the folder holds results of other settings.
    """
    for name in names:
        methods.preset(name)
    splits = datasets.load(settings.data, categories, layout=settings.layout, size=settings.size)
    _same_settings(out, settings)
    rows = _read_rows(out / "metrics.csv")
    for name in names:
        for seed in seeds:
            for part in _parts(splits, settings.protocol):
                done = {(r["method"], r["category"], int(r["seed"])) for r in rows}
                if all((name, category, seed) in done for category in part.categories):
                    continue
                for row in _one(settings, name, seed, part, out):
                    rows = [r for r in rows if _key(r) != _key(row)] + [row]
                    report(row)
                if PartialState().is_main_process:
                    write_text(out / "metrics.csv", _as_csv(rows))
    return rows


def _one(settings: Settings, name: str, seed: int, splits: Splits, out: Path) -> Iterator[Row]:
    """Trains one model and yields a row per category that it was trained on."""
    label = splits.categories[0] if settings.protocol == "single" else "all"
    folder = out / "models" / f"{name.replace('/', '-')}-{label}-seed{seed}"
    model = methods.build(name, seed=seed, **settings.overrides)
    history = fit(
        model, splits.train, seed=seed, device=settings.device, precision=settings.precision, state=folder / "state"
    )
    if not PartialState().is_main_process:
        return
    detector = calibrate(model, splits.calib, device=settings.device, precision=settings.precision)
    save(detector, folder)
    for category, images in per_category(splits.test):
        yield _row(settings, name, seed, category, images, detector, history, out)


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
    result = evaluate(detector.model, images, device=settings.device, precision=settings.precision)
    figure = viz.gallery(result, images, detector, columns=6)
    _save_figure(figure, out / category / f"{name.replace('/', '-')}-seed{seed}.png")
    alarms = detector.threshold.decide(result.scores)
    found: Row = {
        "method": name,
        "protocol": settings.protocol,
        "category": category,
        "seed": seed,
        **result.metrics(),
        "train_seconds": history.seconds,
        "train_images_per_second": history.images_per_second,
        "score_images_per_second": len(images) / result.seconds,
        "latency_ms_p50": latency_ms(detector.model, images.size, runtime(settings.device, settings.precision)),
        "parameters": sum(p.numel() for p in detector.model.student_parameters()),
        "peak_memory_mb": peak_memory_mb(),
        "backbone": detector.model.teacher.name,
        "weights": str(detector.model.teacher.weights),
        "size": settings.size,
        "steps": len(history.rows),
        "runtime": history.runtime,
        "threshold": detector.threshold.value,
        "false_alarms": _share(alarms[result.labels == 0]),
        "recall": _share(alarms[result.labels == 1]),
    }
    return {c: found[c] for c in COLUMNS}


def _parts(splits: Splits, protocol: str) -> list[Splits]:
    return [splits] if protocol == "multi" else [splits.of(category) for category in splits.categories]


def _same_settings(out: Path, settings: Settings) -> None:
    path, own = out / "settings.json", json.loads(json.dumps(asdict(settings)))
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if differs := sorted(k for k in own if found.get(k) != own[k]):
            raise ValueError(
                f"'{out}' holds results with other settings: { ({k: found.get(k) for k in differs}) }, asked for "
                f"{ ({k: own[k] for k in differs}) }. Choose another --out."
            )
    elif PartialState().is_main_process:
        write_text(path, json.dumps(own, indent=2) + "\n")


def _read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != COLUMNS:
            raise ValueError(f"'{path}' has other columns than this version of kdlib writes; choose another --out")
        return list(reader)


def _as_csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return text.getvalue()


def _key(row: Row) -> tuple[str, str, int]:
    return row["method"], row["category"], int(row["seed"])


def _share(decisions: Any) -> float:
    return float(decisions.mean()) if len(decisions) else float("nan")


def _save_figure(figure: plt.Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    figure.savefig(beside, format="png", dpi=110)
    plt.close(figure)
    beside.replace(path)
