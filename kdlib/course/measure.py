"""What the Measure cells share: lookups and finished students beside the student of the notebook, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

import kdlib as kd
from kdlib.contract import Distiller
from kdlib.course import figures
from kdlib.data.records import ImageSet, Splits
from kdlib.scoring.detector import Detector, Maps
from kdlib.scoring.result import Result

METRICS = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro": "AUPRO"}


class Judged(NamedTuple):
    """A detector of one product, and what it says about the product's test images."""

    result: Result
    detector: Detector


def judge(model: Distiller, data: Splits, maps: Maps = "whitened") -> Judged:
    """Calibrates a trained model on one product's `calib` images and scores its test images."""
    detector = kd.calibrate(model, data.calib, maps=maps)
    return Judged(kd.evaluate(detector, data.test), detector)


def trained(name: str, data: Splits, seed: int = 0, **options: object) -> Distiller:
    """A lookup such as `nearest`, or another method, trained on the images that the notebook's student learned from."""
    model = kd.build(name, seed=seed, **options)
    kd.fit(model, data.train, seed=seed, progress=False)
    return model


def finished(method: str, folder: str | Path = "../data/students") -> Distiller:
    """The finished student of a method, kept in `folder`: 256 px, all products of the workshop, or the folder's one."""
    return kd.load(Path(folder) / method).model


def maps(rows: Mapping[str, Judged], images: ImageSet, chosen: Sequence[int], **style: Any) -> Figure:
    """Some test images and their maps by each detector, in units of its threshold; sizes of maps may differ.

    `style` is what `figures.beside` takes, such as `dimmest` for a logarithmic scale.
    """
    items = [images[i] for i in chosen]
    shown = {name: [r.map_of(i) / d.threshold.value for i in chosen] for name, (r, d) in rows.items()}
    titles = [images.samples[i].defect.replace("_", " ") for i in chosen]
    masks = [item["mask"][0] > 0 for item in items]
    return figures.beside([item["image"] for item in items], shown, masks, titles=titles, **style)


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
