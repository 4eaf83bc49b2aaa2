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

from collections.abc import Sequence
from pathlib import Path

from kdlib.data.errors import DatasetError
from kdlib.data.layout import CategoryImages, Layout, normal_folders
from kdlib.data.listing import child
from kdlib.data.samples import Sample
from kdlib.data.trees import collect_mvtec, find_mvtec
from kdlib.data.visa_lists import Entry, csv_at, read_csv, read_meta

VISA_CATEGORIES = frozenset({
    "candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3", "pcb4",
    "pipe_fryum",
})  # fmt: skip


def find(root: Path) -> dict[str, Path]:
    """The categories of any of the three forms; listed ones map to the folder that holds the list.

    Raises:
        DatasetError: A list is damaged.
    """
    if path := csv_at(root):
        return _listed(root, read_csv(path))
    if path := csv_at(root.parent):
        return _listed(root.parent, read_csv(path), root.name)
    inner = child(root, "1cls")
    if folders := find_mvtec(inner or root):
        return folders if inner or VISA_CATEGORIES.issuperset(folders) else {}
    return _listed(root, read_meta(root)) or _listed(root.parent, read_meta(root.parent), root.name)


def collect(folder: Path, category: str) -> CategoryImages:
    """The samples of one category.

    Raises:
        DatasetError: A damaged list, a path in it that is missing or leads out of the root, a file that is named
            twice, defects in training.
    """
    if path := csv_at(folder):
        return _samples(folder, read_csv(path), category)
    if normal_folders(child(folder, "train")):
        return collect_mvtec(folder, category)
    return _samples(folder, read_meta(folder), category)


def _listed(base: Path, entries: Sequence[Entry], only: str | None = None) -> dict[str, Path]:
    names = sorted({entry.category for entry in entries})
    return {name: base for name in names if only in (None, name)}


def _samples(base: Path, entries: Sequence[Entry], category: str) -> CategoryImages:
    samples: dict[str, list[Sample]] = {"train": [], "test": []}
    named: dict[Path, Entry] = {}
    for entry in entries:
        if entry.category != category:
            continue
        if entry.anomalous and entry.split == "train":
            raise DatasetError(
                f"{entry.where} puts the defective image {entry.image!r} into the training split, which takes normal "
                f"images only. Use a list without such lines (VisA: 1cls.csv)."
            )
        path = _locate(base, entry.image, entry, named)
        mask = _locate(base, entry.mask, entry, named) if entry.anomalous and entry.mask else None
        samples[entry.split].append(
            Sample(path=path, category=category, defect=entry.defect, label=int(entry.anomalous), mask_path=mask)
        )
    train, test = (sorted(part, key=lambda sample: sample.path.as_posix()) for part in samples.values())
    return CategoryImages(train=train, test=test)


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


VISA = Layout(
    name="visa",
    expects="split_csv/1cls.csv, 1cls/CATEGORY/train/good, or a meta.json with train and test",
    find=find,
    collect=collect,
    licence="CC BY 4.0 (VisA)",
    licensed=VISA_CATEGORIES,
)
