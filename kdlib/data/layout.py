"""What a layout is (how a data set lies on disk), and the looking into folders that all layouts share.

Hidden files, `._*` copies and everything that is not an image (licences, read-me files, csv, npy) are passed over.
An image where only folders belong is an error: it would silently be missing from every split.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kdlib.data.reading import IMAGE_SUFFIXES, DatasetError
from kdlib.data.records import Sample


@dataclass(frozen=True, kw_only=True)
class Found:
    """The samples of one category. An empty `calib` means: no official validation set, take a share of `train`."""

    train: Sequence[Sample]
    test: Sequence[Sample]
    calib: Sequence[Sample] = field(default=())


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way in which a data set lies on disk."""

    name: str
    expects: str  # shown in errors: what the root holds
    find: Callable[[Path], Mapping[str, Path]]  # root -> {category: its folder}; empty if root has another layout
    collect: Callable[[Path, str], Found]  # folder, category -> samples
    licence: str = ""
    licensed: frozenset[str] | None = None  # the categories whose presence tells this data set; None: the layout does


def find_categories(root: Path, is_category: Callable[[Path], bool]) -> dict[str, Path]:
    """The category folders at `root`: `root` itself if it is one, else its sub-folders that are."""
    if is_category(root):
        return {root.name: root}
    found = {folder.name: folder for folder in folders_in(root) if is_category(folder)}
    if found:
        refuse_images(root)
    return found


def images_in(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted by name; none if the folder does not exist."""
    return [path for path in _list(folder, folders=False) if path.suffix.lower() in IMAGE_SUFFIXES]


def folders_in(folder: Path) -> list[Path]:
    """The visible folders directly in a folder, sorted by name; none if it does not exist."""
    return _list(folder, folders=True)


def images_below(folder: Path) -> list[Path]:
    """The image files in a folder and in all folders below, sorted by path."""
    nested = [path for child in folders_in(folder) for path in images_below(child)]
    return sorted(images_in(folder) + nested, key=Path.as_posix)


def subfolders(folder: Path) -> list[Path]:
    """As `folders_in`, where only folders belong.

    Raises:
        DatasetError: Images lie beside them.
    """
    refuse_images(folder)
    return folders_in(folder)


def refuse_images(*folders: Path) -> None:
    """Raise a `DatasetError` if images lie directly in one of these folders, which should hold folders only."""
    for folder in folders:
        for stray in images_in(folder)[:1]:
            known = ", ".join(child.name + "/" for child in folders_in(folder)) or "no folders"
            raise DatasetError(
                f"{stray} lies where only folders are expected (found: {known}). Move it into one of them or remove it."
            )


def samples_in(folder: Path, category: str, defect: str = "normal", masks: Path | None = None) -> list[Sample]:
    """One sample for each image directly in `folder`; `defect` other than "normal" makes them anomalous.

    With `masks`, each image needs a mask of the same name there, with or without `_mask`, and any image suffix.

    Raises:
        DatasetError: A mask is missing.
    """
    images = images_in(folder)
    mask_of: Mapping[Path, Path] = match_masks(images, masks) if masks is not None else {}
    label = int(defect != "normal")
    return [Sample(path=p, category=category, defect=defect, label=label, mask_path=mask_of.get(p)) for p in images]


def match_masks(images: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Find for each image the mask `STEM_mask.*` or `STEM.*` in a folder.

    Raises:
        DatasetError: An image has none.
    """
    masks = {path.stem: path for path in images_in(folder)}
    matched = {}
    for path in images:
        mask = masks.get(f"{path.stem}_mask") or masks.get(path.stem)
        if mask is None:
            raise DatasetError(
                f"No mask for {path}: expected {path.stem}_mask.png or {path.stem}.png in {folder}, which holds "
                f"{len(masks)} masks for {len(images)} images. Add it, or move the mask folder away to do without."
            )
        matched[path] = mask
    return matched


def inside(root: Path, relative: str, source: Path) -> Path:
    """The file below `root` that a list (`source`) names by a relative path.

    Raises:
        DatasetError: The path leads out of `root`, or there is no such file.
    """
    path = root / relative.replace("\\", "/")
    if not path.resolve().is_relative_to(root.resolve()):
        raise DatasetError(f"{source} names {relative!r}, which leads out of {root}. Paths in it must stay inside.")
    if not path.is_file():
        raise DatasetError(f"{source} names {relative!r}, but {path} does not exist. Copy the file or mend the list.")
    return path


def contents(folder: Path, limit: int = 8) -> str:
    """What lies in a folder, in a few words for error messages."""
    names = [path.name + "/" for path in folders_in(folder)]
    names += [path.name for path in _list(folder, folders=False)]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + more) or "nothing"


def _list(folder: Path, *, folders: bool) -> list[Path]:
    """Visible folders or files directly in `folder`, in an order that does not depend on the file system."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        wanted = [e.name for e in entries if not e.name.startswith((".", "__MACOSX")) and e.is_dir() == folders]
    return [folder / name for name in sorted(wanted)]
