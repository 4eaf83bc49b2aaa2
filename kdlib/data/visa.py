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
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kdlib.data.errors import DatasetError, printable, readable
from kdlib.data.layout import CategoryImages, Layout, is_normal, normal_folders
from kdlib.data.listing import child
from kdlib.data.samples import Sample
from kdlib.data.trees import collect_mvtec, find_mvtec

VISA_CATEGORIES = frozenset({
    "candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3", "pcb4",
    "pipe_fryum",
})  # fmt: skip
META = "meta.json"
SPLITS = ("train", "test")
ITEM = "img_path, mask_path, specie_name and anomaly (0 or 1)"


class Entry(NamedTuple):
    """One line of a list; `mask` is empty for normal images and where no mask exists."""

    where: str  # the file and the line
    split: str
    category: str
    defect: str
    anomalous: bool
    image: str
    mask: str


def find(root: Path) -> dict[str, Path]:
    """The categories of any of the three forms; listed ones map to the folder that holds the list."""
    for base, only in ((root, None), (root.parent, root.name)):
        if path := _csv_at(base):
            return _listed(base, _read_csv(path), only)
    inner = child(root, "1cls")
    if folders := find_mvtec(inner or root):
        return folders if inner or VISA_CATEGORIES.issuperset(folders) else {}
    return _listed(root, _read_meta(root)) or _listed(root.parent, _read_meta(root.parent), root.name)


def collect(folder: Path, category: str) -> CategoryImages:
    """The samples of one category; each line of a list is checked."""
    path = _csv_at(folder)
    if path is None and normal_folders(child(folder, "train")):
        return collect_mvtec(folder, category)
    samples: dict[str, list[Sample]] = {"train": [], "test": []}
    named: dict[Path, Entry] = {}
    for entry in _read_csv(path) if path else _read_meta(folder):
        if entry.category != category:
            continue
        if entry.anomalous and entry.split == "train":
            raise DatasetError(
                f"{entry.where} puts the defective image {entry.image!r} into the training split, which takes normal "
                f"images only. Use a list without such lines (VisA: 1cls.csv)."
            )
        image = _locate(folder, entry.image, entry, named)
        mask = _locate(folder, entry.mask, entry, named) if entry.anomalous and entry.mask else None
        label = int(entry.anomalous)
        sample = Sample(path=image, category=category, defect=entry.defect, label=label, mask_path=mask)
        samples[entry.split].append(sample)
    train, test = (sorted(part, key=lambda sample: sample.path.as_posix()) for part in samples.values())
    return CategoryImages(train=train, test=test)


def why_no_meta(root: Path) -> str:
    """What keeps a meta.json from being read as a list of images; empty where none is."""
    path = root / META
    return f" {META} {_lists(path)[1] or 'lists no images'}." if path.is_file() else ""


def _listed(base: Path, entries: Sequence[Entry], only: str | None = None) -> dict[str, Path]:
    names = sorted({entry.category for entry in entries})
    return {name: base for name in names if only in (None, name)}


def _locate(base: Path, relative: str, entry: Entry, named: dict[Path, Entry]) -> Path:
    """The file that a line names; a `DatasetError` if it is missing, outside of `base`, or `named` before."""
    path = base / relative.replace("\\", "/")
    real = path.resolve()
    found = f"{entry.where} names {relative!r}"
    if not real.is_relative_to(base.resolve()):
        raise DatasetError(f"{found}, which leads out of {base}. Paths in it must stay inside.")
    if not real.is_file():
        raise DatasetError(f"{found}, but {path} does not exist. Copy the file or mend the list.")
    if before := named.get(real):
        raise DatasetError(
            f"{found} ({entry.split}), which {before.where} names too ({before.split}). Each image and each mask may "
            f"be named once: remove one of the lines."
        )
    named[real] = entry
    return path


def _csv_at(root: Path) -> Path | None:
    """The list split_csv/1cls.csv of a root, if it has one."""
    folder = child(root, "split_csv") if os.access(root, os.R_OK) else None
    return folder / "1cls.csv" if folder and (folder / "1cls.csv").is_file() else None


def _read_csv(path: Path) -> list[Entry]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = enumerate(csv.DictReader(file), start=2)
            entries = [_csv_entry(row, f"{path}, line {number}") for number, row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is damaged ({error}). Take the file that comes with VisA.") from error
    if not entries:
        raise DatasetError(f"{path} lists no images. Take the file that comes with VisA.")
    return entries


def _csv_entry(row: dict[str, Any], where: str) -> Entry:
    values = [(row.get(key) or "").strip() for key in ("split", "object", "label", "image", "mask")]
    split, category, label, image, mask = values
    split, label = split.lower(), label.lower()
    if split not in SPLITS or label not in ("normal", "anomaly") or not category or not image:
        raise DatasetError(
            f"{where}: {row} has not the columns object, split (train or test), label (normal or anomaly), image, "
            f"mask. Take the file that comes with VisA."
        )
    return Entry(where, split, _plain(category, where), label, label == "anomaly", image, mask)


def _read_meta(root: Path) -> list[Entry]:
    """The entries of meta.json; none if there is none, or one of another kind: the name is too common to insist."""
    path = root / META
    lists, problem = _lists(path)
    if "damaged" in problem:
        warnings.warn(f"{path} {problem} and is passed over.", stacklevel=2)
    entries: list[Entry] = []
    for split, categories in lists.items():
        for category, items in categories.items():
            where = f"{path}, {split!r}, {category!r}"
            if not isinstance(items, list):
                raise DatasetError(f"{where}: found {items!r}; expected a list of objects with {ITEM}.")
            entries += [_meta_entry(item, split, category, f"{where}, item {i}") for i, item in enumerate(items)]
    return entries


def _lists(path: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """The items of train and test in a meta.json, by category, or what is wrong with it."""
    if not path.is_file():
        return {}, ""
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        return {}, f"is damaged ({error})"
    if not isinstance(data, dict) or not all(isinstance(data.get(split), dict) for split in SPLITS):
        return {}, 'has not the form {"train": {CATEGORY: [...]}, "test": {CATEGORY: [...]}}'
    return {split: data[split] for split in SPLITS}, ""


def _meta_entry(item: Any, split: str, category: str, where: str) -> Entry:
    fields = item if isinstance(item, dict) else {}
    image, mask, defect = texts = [fields.get(key) or "" for key in ("img_path", "mask_path", "specie_name")]
    flag = fields.get("anomaly")
    if not image or flag not in (0, 1, "0", "1") or not all(isinstance(text, str) for text in texts):
        raise DatasetError(f"{where}: {item!r} is not an object with {ITEM}.")
    anomalous = bool(int(flag))
    if anomalous and is_normal(defect):
        raise DatasetError(f"{where}: {item!r} is an anomaly of the kind {defect!r}. Set anomaly to 0, or name it.")
    kind = (readable(defect) or "anomaly") if anomalous else "normal"
    return Entry(where, split, _plain(category, where), kind, anomalous, image, mask)


def _plain(category: str, where: str) -> str:
    """A category's name, which becomes the name of folders and files; a `DatasetError` if no file can have it."""
    name = printable(category)
    if name in ("", ".", "..") or not name.isprintable() or any(sign in '/\\:*?"<>|' for sign in category):
        raise DatasetError(f"{where}: the category {name!r} cannot be the name of a folder. Use letters and digits.")
    return name


EXPECTS = "split_csv/1cls.csv, 1cls/CATEGORY/train/good, or a meta.json with train and test"
VISA = Layout("visa", EXPECTS, find, collect, "CC BY 4.0 (VisA)", VISA_CATEGORIES)
