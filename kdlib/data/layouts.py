"""Which layout a folder has, and which categories it holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from kdlib.data.errors import DatasetError, check_known
from kdlib.data.folder import OWN
from kdlib.data.layout import Layout
from kdlib.data.listing import contents, few, folders_in
from kdlib.data.trees import AD2, BMAD, BTAD, LOCO, MVTEC, MVTEC3D
from kdlib.data.visa import VISA, why_no_meta
from kdlib.files import expanded

# "auto" takes the first that fits, so the more particular layouts come first.
LAYOUTS: Mapping[str, Layout] = {layout.name: layout for layout in (VISA, MVTEC3D, BMAD, BTAD, AD2, LOCO, MVTEC, OWN)}


def recognise(root: Path, layout: str) -> tuple[Layout, Mapping[str, Path]]:
    """The layout of a folder, and its categories with their folders."""
    root = Path(os.path.abspath(expanded(root)))
    if not root.is_dir():
        problem = "is a file, not a folder" if root.exists() else "does not exist"
        raise DatasetError(f"The data set folder {root} {problem}. Give the folder that holds the categories.")
    if layout != "auto":
        check_known("layout", layout, ("auto", *LAYOUTS))
    tried = list(LAYOUTS.values()) if layout == "auto" else [LAYOUTS[layout]]
    for kind in tried:
        if categories := kind.find(root):
            return kind, categories
    looked = "\n".join(f"  {kind.name}: {kind.expects}" for kind in tried)
    problem = why_no_meta(root) if VISA in tried else ""
    raise DatasetError(
        f"No data set in {root}. Looked there for\n{looked}\nFound: {contents(root)}.{problem}{_hint(root, layout)}"
    )


def _hint(root: Path, layout: str) -> str:
    """Where a data set might be instead: here in another layout, or one folder further down."""
    if layout != "auto":
        return f" It looks like layout={kind!r}." if (kind := fitting(root)) else ""
    below = [f"{folder.name} ({kind})" for folder in folders_in(root) if (kind := fitting(folder))]
    return f" One folder further down there is: {few(below, 6)}." if below else ""


def fitting(folder: Path) -> str:
    """The layout that a folder has, or nothing."""
    for kind in LAYOUTS.values():
        with suppress(DatasetError):
            if kind.find(folder):
                return kind.name
    return ""
