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

from kdlib.data.folder import collect_mvtec
from kdlib.data.layout import Found, Layout, find_categories


def find(root: Path) -> dict[str, Path]:
    """The folders at `root`, or in its BTech_Dataset_transformed, that hold train/ok."""
    inner = root / "BTech_Dataset_transformed"
    return find_categories(inner if inner.is_dir() else root, lambda folder: (folder / "train" / "ok").is_dir())


def collect(folder: Path, category: str) -> Found:
    """The samples of one product.

    Raises:
        DatasetError: Images where folders belong, or a ground_truth folder that lacks a mask.
    """
    return collect_mvtec(folder, category, good="ok")


BTAD = Layout(
    name="btad",
    expects="CATEGORY/train/ok/*.bmp (BTech_Dataset_transformed)",
    find=find,
    collect=collect,
    licence="CC BY-NC-SA 4.0, non-commercial (BTAD)",
)
