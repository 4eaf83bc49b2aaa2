"""What lies in a folder: images, masks beside them, and folders, in an order that no file system changes.

Hidden files, `._*` copies and everything that is not an image (licences, read-me files, csv, npy) are passed over.
Images in formats that are not read are passed over with a warning. A folder that does not exist, or `None`, is empty.
"""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from kdlib.data.decoding import decode
from kdlib.data.errors import DatasetError

IMAGE_SUFFIXES = frozenset({
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".tif", ".tiff", ".webp", ".gif",
    ".pnm", ".ppm", ".pgm", ".pbm", ".jp2", ".j2k",
})  # fmt: skip
UNREAD_SUFFIXES = frozenset({
    ".heic", ".heif", ".avif", ".jxl", ".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2",
    ".exr", ".hdr", ".pfm", ".dcm", ".psd", ".tga", ".svg", ".pcx", ".dds",
})  # fmt: skip
MASK_ENDING = "_mask"
_MASK_VALUES = 16  # a photograph has more different values, a mask with class numbers hardly


def image_files(folder: Path | None) -> list[Path]:
    """The image files directly in a folder, masks among them, sorted by name."""
    found: list[Path] = []
    unread: list[str] = []
    for entry in _visible(folder):
        path, suffix = Path(entry.path), Path(entry.name).suffix.lower()
        if _is_folder(entry) or suffix not in IMAGE_SUFFIXES | UNREAD_SUFFIXES:
            continue
        if suffix in UNREAD_SUFFIXES:
            unread.append(entry.name)
        elif entry.is_file():
            found.append(path)
        else:
            raise DatasetError(f"{path} is no file (a broken link, a pipe or a device). Replace or remove it.")
    if unread:
        text = f"{folder}: {few(unread, 3)} passed over, because kdlib does not read this format. Save as PNG."
        warnings.warn(text, stacklevel=2)
    return found


def images_in(folder: Path) -> dict[Path, Path | None]:
    """The images directly in a folder, sorted by name, each with the mask that lies beside it, if one does.

    A mask beside its image is no image: STEM_mask.* beside STEM.*, or the one of two files with the same stem that has
    hardly any different pixel values.
    """
    files = image_files(folder)
    stems: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        stems[path.stem].append(path)
    masks: dict[str, list[Path]] = defaultdict(list)
    for stem, group in stems.items():
        owner = stem_of_image(stem)
        if owner != stem and owner in stems:
            masks[owner] += group
        elif len(group) > 1 and len(alike := [path for path in group if _looks_like_a_mask(path)]) == len(group) - 1:
            masks[stem] += alike
    set_aside = {path for group in masks.values() for path in group}
    return {path: only_mask(path, masks.get(path.stem, [])) for path in files if path not in set_aside}


def stem_of_image(stem_of_mask: str) -> str:
    """The stem without `_mask` in any case."""
    return stem_of_mask[: -len(MASK_ENDING)] if stem_of_mask.lower().endswith(MASK_ENDING) else stem_of_mask


def only_mask(image: Path, masks: Sequence[Path]) -> Path | None:
    """The one mask of an image, if it has one; a `DatasetError` where there are several."""
    if len(masks) > 1:
        raise DatasetError(f"{image} has {len(masks)} masks: {', '.join(map(str, masks))}. Keep the one that is right.")
    return masks[0] if masks else None


def folders_in(folder: Path | None) -> list[Path]:
    """The visible folders directly in a folder, sorted by name."""
    return [Path(entry.path) for entry in _visible(folder) if _is_folder(entry)]


def folders_to_walk(folder: Path) -> Iterator[Path]:
    """The same for a walk to any depth, which a link to a folder around it would make endless: a `DatasetError`."""
    for part in folders_in(folder):
        if part.is_symlink() and folder.resolve().is_relative_to(part.resolve()):
            raise DatasetError(f"{part} is a link that leads back to a folder in which it lies. Remove it.")
        yield part


def child(folder: Path | None, *names: str) -> Path | None:
    """The sub-folder that has one of these names, in any case; a `DatasetError` where there are several."""
    matching = [part for part in folders_in(folder) if part.name.lower() in names]
    if len(matching) > 1:
        found = few([part.name for part in matching], 3)
        raise DatasetError(f"{folder} holds {found}, which mean the same. Put their files into one of them.")
    return matching[0] if matching else None


def folders_with_images(folder: Path) -> Iterator[Path]:
    """A folder and all below it, at any depth, that hold image files directly."""
    if image_files(folder):
        yield folder
    for part in folders_to_walk(folder):
        yield from folders_with_images(part)


def has_images(folder: Path) -> bool:
    """Whether image files lie in a folder or anywhere below."""
    return next(folders_with_images(folder), None) is not None


def refuse_images(*folders: Path | None) -> None:
    """Raise a `DatasetError` if images lie directly in one of these folders, which should hold folders only."""
    for folder in folders:
        for stray in image_files(folder)[:1]:
            known = ", ".join(part.name + "/" for part in folders_in(folder)) or "no folders"
            raise DatasetError(
                f"{stray} lies where only folders are expected (found: {known}). Move it into one of them or remove it."
            )


def refuse_folders(folder: Path | None, expected: Sequence[str] = (), why: str = "") -> None:
    """Raise a `DatasetError` if a folder holds a sub-folder with images that has none of the `expected` names."""
    for part in folders_in(folder):
        if part.name.lower() not in expected and has_images(part):
            wanted = f"folders named {', '.join(expected)}" if expected else "images without further folders"
            raise DatasetError(
                f"{part} holds images that belong to no split: {folder} should hold {wanted}{why}. Move them up, "
                f"rename the folder, or move it out of the data set."
            )


def contents(folder: Path) -> str:
    """What lies in a folder, in a few words for error messages."""
    entries = _visible(folder)
    names = [entry.name + "/" for entry in entries if entry.is_dir()]
    return few(names + [entry.name for entry in entries if not entry.is_dir()], 8) or "nothing"


def few(names: Sequence[str], limit: int) -> str:
    """The first of many names."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _looks_like_a_mask(path: Path) -> bool:
    return len(np.unique(np.asarray(decode(path).image))) <= _MASK_VALUES


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a `DatasetError` for links that only name each other."""
    try:
        return entry.is_dir()
    except OSError as error:
        raise DatasetError(f"{entry.path} is a link that leads to nothing ({error}). Remove it.") from error


def _visible(folder: Path | None) -> list[os.DirEntry[str]]:
    """What lies directly in a folder, sorted by name."""
    if folder is None or not folder.is_dir():
        return []
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise DatasetError(f"The folder {folder} cannot be read ({error}). Mend its access rights.") from error
    return sorted(visible, key=lambda entry: entry.name)
