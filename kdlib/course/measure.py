"""What the Measure cells share: lookups and finished students beside the student of the notebook, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import kdlib as kd
from kdlib.contract import Distiller
from kdlib.data.records import Splits
from kdlib.scoring.detector import Detector
from kdlib.scoring.result import Result

METRICS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}
Maps = Literal["plain", "normal"]
WORDS: dict[Maps, str] = {"plain": "plain", "normal": "calibrated"}


class Judged(NamedTuple):
    """A detector of one product, and what it says about the product's test images."""

    result: Result
    detector: Detector


def judge(model: Distiller, data: Splits, maps: Maps = "normal") -> Judged:
    """Calibrates a trained model on one product's `calib` images and scores its test images."""
    detector = kd.calibrate(model, data.calib, maps=maps)
    return Judged(kd.evaluate(detector, data.test), detector)


def trained(name: str, data: Splits, seed: int = 0, **options: object) -> Distiller:
    """A lookup such as `nearest`, or another method, trained on the images that the notebook's student learned from."""
    model = kd.build(name, seed=seed, **options)
    kd.fit(model, data.train, seed=seed, progress=False)
    return model


def finished(method: str, folder: str | Path) -> Distiller:
    """The finished student of a method, kept in `folder`: 256 px, one model for all products of the workshop."""
    return kd.load(Path(folder) / method).model


def both_ways(models: Mapping[str, Distiller], data: Splits) -> dict[str, Judged]:
    """Each model with plain and with calibrated maps, named after both."""
    rows: dict[str, Judged] = {}
    for name, model in models.items():
        for maps, word in WORDS.items():
            rows[f"{name}, {word}"] = judge(model, data, maps)
    return rows


def table(rows: Mapping[str, Judged], kinds: bool = False) -> str:
    """Markdown: a row for each name with the three metrics, and image AUROC by kind of defect if asked for."""
    first = next(iter(rows.values())).result
    columns = sorted(set(first.defects.tolist()) - {"normal"}) if kinds else []
    titles = [*METRICS.values(), *(kind.replace("_", " ") for kind in columns)]
    lines = ["| | " + " | ".join(titles) + " |", "| --- " * (1 + len(titles)) + "|"]
    for name, (result, _) in rows.items():
        values = [result.metrics()[metric] for metric in METRICS]
        values += [result.of_defect(kind).metrics()["image_auroc"] for kind in columns]
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    return "\n".join(lines)
