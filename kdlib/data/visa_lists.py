"""Lists of images in files, for the layout visa: 1cls.csv and meta.json. Every damaged line is named."""

from __future__ import annotations

import csv
import json
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kdlib.data.errors import DatasetError, readable
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


def read_csv(root: Path) -> Iterator[Entry]:
    """The lines of split_csv/1cls.csv.

    Raises:
        DatasetError: It is damaged or empty.
    """
    path = csv_at(root)
    count = 0
    try:
        with open(path or root, newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.DictReader(file), start=2):
                yield _csv_entry(row, f"{path}, line {number}")
                count += 1
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is damaged ({error}). Take the file that comes with VisA.") from error
    if not count:
        raise DatasetError(f"{path} lists no images. Take the file that comes with VisA.")


def read_meta(root: Path) -> Iterator[Entry]:
    """The entries of meta.json; nothing if there is none, or one of another kind: the name is too common to insist.

    Raises:
        DatasetError: It has the lists "train" and "test", which are damaged.
    """
    path = root / META
    data, problem = _parsed(path)
    if problem:
        warnings.warn(f"{path} {problem} and is passed over.", stacklevel=2)
    if not _is_meta(data):
        return
    for split in SPLITS:
        for category, items in data[split].items():
            if not isinstance(items, list):
                raise DatasetError(
                    f"{path}: the images of {category!r} in {split!r} are {items!r}; expected a list of objects with "
                    f"img_path, mask_path, specie_name and anomaly (0 or 1)."
                )
            for number, item in enumerate(items):
                yield _meta_entry(item, split, category, f"{path}, {split!r}, {category!r}, item {number}")


def why_no_meta(root: Path) -> str:
    """What keeps a meta.json from being read as a list of images; empty where none is."""
    path = root / META
    if not path.is_file():
        return ""
    data, problem = _parsed(path)
    if not problem and not _is_meta(data):
        problem = 'has not the form {"train": {CATEGORY: [...]}, "test": {CATEGORY: [...]}}'
    return f"{META} {problem or 'lists no images'}."


def _parsed(path: Path) -> tuple[Any, str]:
    """What a JSON file holds, or what is wrong with it; neither if there is no such file."""
    if not path.is_file():
        return None, ""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig")), ""
    except (OSError, ValueError, RecursionError) as error:
        return None, f"is damaged ({error})"


def _is_meta(data: Any) -> bool:
    return isinstance(data, dict) and all(isinstance(data.get(split), dict) for split in SPLITS)


def _csv_entry(row: dict[str, Any], where: str) -> Entry:
    values = [row.get(key) for key in ("split", "object", "label", "image", "mask")]
    split, category, label, image, mask = ("" if value is None else value.strip() for value in values)
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
        raise DatasetError(
            f"{where}: {item!r} is an anomaly of the kind {defect!r}. Set anomaly to 0, or name the defect."
        )
    defect = readable(defect) or "anomaly" if anomalous else "normal"
    return Entry(where, split, _plain(category, where), defect, anomalous, image, mask)


def _plain(category: str, where: str) -> str:
    """A category's name, which becomes the name of folders and files.

    Raises:
        DatasetError: It leads elsewhere, or no file can have it.
    """
    name = readable(category)
    if name in ("", ".", "..") or not name.isprintable() or any(sign in '/\\:*?"<>|' for sign in category):
        raise DatasetError(f"{where}: the category {name!r} cannot be the name of a folder. Use letters and digits.")
    return name
