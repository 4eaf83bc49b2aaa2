"""BTAD: three industrial products, in the MVTec layout with other folder names.

    ROOT/01/train/ok/0000.bmp
    ROOT/01/test/{ok,ko}/0000.bmp
    ROOT/01/ground_truth/ko/0000.png

ROOT is BTech_Dataset_transformed or the folder that holds it. Images and masks end in .bmp or .png in any mixture, so
they are matched by their stem.
Source: P. Mishra et al., VT-ADL, ISIE 2021.
"""

from __future__ import annotations

from pathlib import Path

from kdlib.data.layout import Layout, find_categories
from kdlib.data.listing import child
from kdlib.data.mvtec import collect_mvtec, is_mvtec

CATEGORIES = frozenset({"01", "02", "03"})


def find(root: Path) -> dict[str, Path]:
    """The folders at `root`, or in its BTech_Dataset_transformed, that hold train/ok."""
    return find_categories(child(root, "btech_dataset_transformed") or root, _is_category)


def _is_category(folder: Path) -> bool:
    train = child(folder, "train")
    return is_mvtec(folder) and train is not None and child(train, "ok") is not None


BTAD = Layout(
    name="btad",
    expects="CATEGORY/train/ok/*.bmp (BTech_Dataset_transformed)",
    find=find,
    collect=collect_mvtec,
    licence="CC BY-NC-SA 4.0, non-commercial (BTAD)",
    licensed=CATEGORIES,
)
