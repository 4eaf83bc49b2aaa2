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

from kdlib.data.layout import Layout
from kdlib.data.listing import child
from kdlib.data.mvtec import collect_mvtec, find_mvtec

CATEGORIES = frozenset({"01", "02", "03"})


def find(root: Path) -> dict[str, Path]:
    """The categories in BTech_Dataset_transformed, or at a root whose categories have train/ok."""
    inner = child(root, "btech_dataset_transformed")
    categories = find_mvtec(inner or root)
    with_ok = [name for name, folder in categories.items() if _has_ok(folder)]
    ours = len(with_ok) == len(categories) or (with_ok and CATEGORIES.issuperset(categories))
    return categories if inner or ours else {}


def _has_ok(folder: Path) -> bool:
    train = child(folder, "train")
    return train is not None and child(train, "ok") is not None


BTAD = Layout(
    name="btad",
    expects="CATEGORY/train/ok/*.bmp (BTech_Dataset_transformed)",
    find=find,
    collect=collect_mvtec,
    licence="CC BY-NC-SA 4.0, non-commercial (BTAD)",
    licensed=CATEGORIES,
)
