"""Which defects are missed: image AUROC of the finished students by how strongly a defect was painted.

    python -m kdlib severity

The rendered test pictures of every kind of defect rise from hardly visible to obvious. A mean over all of them says how
good a detector is on that mixture; each third of it, beside the same normal images, says what it sees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import kdlib as kd
from kdlib.contract import Distiller
from kdlib.course.leaderboard import NEAREST, SIZE
from kdlib.data.records import Splits
from kdlib.files import write_text
from kdlib.scoring.metrics import image_metrics
from kdlib.scoring.result import Result
from kdlib.trials.trial import scoring

THIRDS = ("faint", "middle", "strong")


def run(
    methods: Sequence[str] | None,
    students: Path,
    out: Path,
    report: Callable[[str], None],
    data: str = "workshop_report",
) -> Path:
    """Measures finished students and lookups; returns the file of rows, `out/severity.csv`.

    Args:
        methods: Folders of `students`, or lookups such as `nearest/coreset`; `None`: all students and that lookup.
        students: Folder of the finished students.
        out: Folder of the file; rows of other methods stay in it.
        report: Is called with a line of text per method.
        data: A rendered set, or its folder.

    Raises:
        ValueError: If there is no such student.
    """
    known = sorted(card.parent.name for card in students.glob("*/card.json"))
    wanted = [*known, NEAREST[-1]] if methods is None else list(dict.fromkeys(methods))
    if unknown := sorted(set(wanted) - set(known) - set(NEAREST)):
        raise ValueError(f"there are no finished students {unknown} in '{students}'; there are {known}, and {NEAREST}")
    splits = kd.data.load(data, size=SIZE)
    path = out / "severity.csv"
    for method in wanted:
        model, maps = _ready(method, students, splits)
        rows = pd.DataFrame(_rows(method, model, maps, splits))
        kept = pd.read_csv(path) if path.exists() else rows.iloc[:0]
        table = pd.concat([kept[kept["method"] != method], rows]).sort_values("method", kind="stable")
        write_text(path, table.to_csv(index=False, lineterminator="\n"))
        means = rows.groupby("severity", sort=False)["image_auroc"].mean()
        report(f"{method} {maps}: " + ", ".join(f"{name} {value:.3f}" for name, value in means.items()))
    return path


def by_severity(result: Result) -> dict[str, Result]:
    """Results of one rendered product: normal images with each third of every kind of defect, faint ones first."""
    defects, numbers = result.defects, np.array([int(sample.path.stem) for sample in result.samples])
    thirds = np.zeros(len(numbers), dtype=np.int64)
    for kind in np.unique(defects):
        chosen = defects == kind
        thirds[chosen] = numbers[chosen] * len(THIRDS) // (numbers[chosen].max() + 1)
    normal = result.labels == 0
    return {name: result.subset(np.flatnonzero(normal | (thirds == third))) for third, name in enumerate(THIRDS)}


def _ready(method: str, students: Path, splits: Splits) -> tuple[Distiller, str]:
    """A trained model, and how its maps are scored."""
    if method not in NEAREST:
        model = kd.load(students / method).model
        return model, model.recommended if model.whitens else "normal"
    model = kd.build(method, seed=0)
    kd.fit(model, splits.train, seed=0, progress=False)
    return model, "plain"


def _rows(method: str, model: Distiller, maps: str, splits: Splits) -> Iterator[dict[str, Any]]:
    for category in splits.categories:
        detector = kd.calibrate(model, splits.calib.of(category), **scoring(maps))
        result = kd.evaluate(detector, splits.test.of(category))
        for name, part in by_severity(result).items():
            yield {
                "method": method,
                "maps": maps,
                "category": category,
                "severity": name,
                "normal": int((part.labels == 0).sum()),
                "defective": int(part.labels.sum()),
                "image_auroc": round(image_metrics(part.scores, part.labels)["image_auroc"], 4),
                "found": round(float(detector.threshold.decide(part.scores)[part.labels == 1].mean()), 4),
            }
