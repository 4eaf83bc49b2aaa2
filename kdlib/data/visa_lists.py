"""Lists of images in files, for the layout visa: 1cls.csv and meta.json. Every damaged line is named."""

from __future__ import annotations

import csv
import json
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from kdlib.data.errors import DatasetError, printable, readable
from kdlib.data.layout import is_normal
from kdlib.data.listing import child

META = "meta.json"
SPLITS = ("train", "test")


class Entry(NamedTuple):
    """One line of a list; `mask` is empty for normal images and where no mask exists."""

    where: str  # the file and the line
    split: str
    category: str
    defect: str
    anomalous: bool
    image: str
    mask: str


def csv_at(root: Path) -> Path | None:
    """The list split_csv/1cls.csv of a root, if it has one."""
    folder = child(root, "split_csv") if os.access(root, os.R_OK) else None
    return folder / "1cls.csv" if folder and (folder / "1cls.csv").is_file() else None


def read_csv(path: Path) -> list[Entry]:
    """The lines of a 1cls.csv.

    Raises:
        DatasetError: It is damaged or empty.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = enumerate(csv.DictReader(file), start=2)
            entries = [_csv_entry(row, f"{path}, line {number}") for number, row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is damaged ({error}). Take the file that comes with VisA.") from error
    if not entries:
        raise DatasetError(f"{path} lists no images. Take the file that comes with VisA.")
    return entries


def read_meta(root: Path) -> list[Entry]:
    """The entries of meta.json; none if there is none, or one of another kind: the name is too common to insist.

    Raises:
        DatasetError: It has the lists "train" and "test", which are damaged.
    """
    path = root / META
    lists, problem = _lists(path)
    if "damaged" in problem:
        warnings.warn(f"{path} {problem} and is passed over.", stacklevel=2)
    entries: list[Entry] = []
    for split, categories in lists.items():
        for category, items in categories.items():
            where = f"{path}, {split!r}, {category!r}"
            if not isinstance(items, list):
                raise DatasetError(
                    f"{where}: found {items!r}; expected a list of objects with img_path, mask_path, specie_name and "
                    f"anomaly (0 or 1)."
                )
            entries += [_meta_entry(item, split, category, f"{where}, item {i}") for i, item in enumerate(items)]
    return entries


def why_no_meta(root: Path) -> str:
    """What keeps a meta.json from being read as a list of images; empty where none is."""
    path = root / META
    return f" {META} {_lists(path)[1] or 'lists no images'}." if path.is_file() else ""


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


def _csv_entry(row: dict[str, Any], where: str) -> Entry:
    split, category, label, image, mask = (
        (row.get(key) or "").strip() for key in ("split", "object", "label", "image", "mask")
    )
    split, label = split.lower(), label.lower()
    if split not in SPLITS or label not in ("normal", "anomaly") or not category or not image:
        raise DatasetError(
            f"{where}: {row} has not the columns object, split (train or test), "
            f"label (normal or anomaly), image, mask. Take the file that comes with VisA."
        )
    return Entry(where, split, _plain(category, where), label, label == "anomaly", image, mask)


def _meta_entry(item: Any, split: str, category: str, where: str) -> Entry:
    fields = item if isinstance(item, dict) else {}
    image, mask, defect = (fields.get(key) or "" for key in ("img_path", "mask_path", "specie_name"))
    flag = fields.get("anomaly")
    if not (image and all(isinstance(text, str) for text in (image, mask, defect)) and flag in (0, 1, "0", "1")):
        raise DatasetError(
            f"{where}: {item!r} is not an object with img_path, mask_path, specie_name and anomaly (0 or 1)."
        )
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
