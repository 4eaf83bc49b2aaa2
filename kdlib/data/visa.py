"""VisA, in the three forms in which it is found.

    raw           ROOT/split_csv/1cls.csv lists object, split, label, image, mask; files lie in ROOT/CATEGORY/Data/...
    reorganised   ROOT/1cls/CATEGORY/{train/good, test/good, test/bad, ground_truth/bad}: the MVTec layout
    meta.json     ROOT/meta.json: {"train": {CATEGORY: [{img_path, mask_path, specie_name, anomaly}, ...]}, "test": ...}

All paths in the lists are relative to ROOT. Pixels of masks hold small class numbers, not 255: above zero is defect.
Many projects write a meta.json for other data sets too, so it is read whatever the categories are, unless the folders
themselves have the MVTec layout.
Source: Y. Zou et al., SPot-the-Difference, ECCV 2022.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kdlib.data.folder import collect_mvtec, find_mvtec
from kdlib.data.layout import Found, Layout, inside
from kdlib.data.reading import DatasetError
from kdlib.data.records import Sample

VISA_CATEGORIES = frozenset({
    "candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3", "pcb4",
    "pipe_fryum",
})  # fmt: skip
CSV = Path("split_csv", "1cls.csv")
META = Path("meta.json")


class Entry(NamedTuple):
    """One line of a list; `mask` is empty for normal images and where no mask exists."""

    split: str
    category: str
    defect: str
    image: str
    mask: str


def find(root: Path) -> dict[str, Path]:
    """The categories of any of the three forms; listed ones map to the folder that holds the list."""
    if (root / CSV).is_file():
        return _listed(root, _read_csv(root))
    if (root.parent / CSV).is_file():
        return _listed(root.parent, _read_csv(root.parent), root.name)
    inner = root / "1cls"
    folders = find_mvtec(inner if inner.is_dir() else root)
    if folders:
        return folders if inner.is_dir() or VISA_CATEGORIES.issuperset(folders) else {}
    return _listed(root, _read_meta(root)) or _listed(root.parent, _read_meta(root.parent), root.name)


def collect(folder: Path, category: str) -> Found:
    """The samples of one category.

    Raises:
        DatasetError: A damaged list, a path in it that is missing or leads out of the root, defects in training.
    """
    if (folder / CSV).is_file():
        return _found(folder, CSV, [entry for entry in _read_csv(folder) if entry.category == category])
    if (folder / "train" / "good").is_dir():
        return collect_mvtec(folder, category)
    return _found(folder, META, [entry for entry in _read_meta(folder) if entry.category == category])


def _listed(base: Path, entries: Iterator[Entry], only: str | None = None) -> dict[str, Path]:
    names = sorted({entry.category for entry in entries})
    return {name: base for name in names if only in (None, name)}


def _found(base: Path, source: Path, entries: list[Entry]) -> Found:
    samples: dict[str, list[Sample]] = {"train": [], "test": []}
    for entry in entries:
        anomalous = entry.defect != "normal"
        if anomalous and entry.split == "train":
            raise DatasetError(
                f"{base / source} puts the defective image {entry.image!r} into the training split; "
                f"training here needs normal images only. Use a list without such lines (VisA: 1cls.csv)."
            )
        samples[entry.split].append(
            Sample(
                path=inside(base, entry.image, base / source),
                category=entry.category,
                defect=entry.defect,
                label=int(anomalous),
                mask_path=inside(base, entry.mask, base / source) if anomalous and entry.mask else None,
            )
        )
    train, test = (sorted(part, key=lambda sample: sample.path.as_posix()) for part in samples.values())
    return Found(train=train, test=test)


def _read_csv(base: Path) -> Iterator[Entry]:
    with (base / CSV).open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.DictReader(file), start=2):
            values = [row.get(key) for key in ("split", "object", "label", "image", "mask")]
            split, category, label, image, mask = ("" if value is None else value.strip() for value in values)
            if split not in ("train", "test") or label not in ("normal", "anomaly") or not category or not image:
                raise DatasetError(
                    f"{base / CSV}, line {number}: {row} has not the columns object, split (train or test), "
                    f"label (normal or anomaly), image, mask. Take the file that comes with VisA."
                )
            yield Entry(split, category, label, image, mask)


def _read_meta(base: Path) -> Iterator[Entry]:
    """Nothing if there is no meta.json, or one of another kind: the name is too common to insist."""
    try:
        data = json.loads((base / META).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if not (isinstance(data, dict) and all(isinstance(data.get(split), dict) for split in ("train", "test"))):
        return
    for split in ("train", "test"):
        for category, items in data[split].items():
            for item in items:
                yield _meta_entry(item, split, category, base / META)


def _meta_entry(item: dict[str, Any], split: str, category: str, source: Path) -> Entry:
    try:
        image, anomalous = str(item["img_path"]), bool(int(item["anomaly"]))
        defect = (item.get("specie_name") or "anomaly") if anomalous else "normal"
        return Entry(split, category, str(defect), image, str(item.get("mask_path") or ""))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{source}: {item!r} (category {category!r}, {split}) is not an object with img_path, mask_path, "
            f"specie_name and anomaly (0 or 1): {error!r}."
        ) from error


VISA = Layout(
    name="visa",
    expects="split_csv/1cls.csv, 1cls/CATEGORY/train/good, or a meta.json with train and test",
    find=find,
    collect=collect,
    licence="CC BY 4.0 (VisA)",
    licensed=VISA_CATEGORIES,
)
