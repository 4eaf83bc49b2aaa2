"""What lies in a folder: images, masks beside them, and folders, in an order that no file system changes.

Hidden files, `._*` copies and everything that is not an image (licences, read-me files, csv, npy) are passed over.
Images in formats that are not read are passed over with a warning that names them.
"""

from __future__ import annotations

import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
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


def image_files(folder: Path) -> list[Path]:
    """The image files directly in a folder, masks among them, sorted by name; none if the folder does not exist.

    Raises:
        DatasetError: Something with an image's name is not a file.
    """
    files = _list(folder, folders=False)
    if unread := [path for path in files if path.suffix.lower() in UNREAD_SUFFIXES]:
        warnings.warn(
            f"{folder}: {_few(unread)} passed over, because kdlib does not read this format. Save as PNG.",
            stacklevel=2,
        )
    return [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]


def images_in(folder: Path) -> dict[Path, Path | None]:
    """The images directly in a folder, sorted by name, each with the mask that lies beside it, if one does.

    A mask beside its image is no image: STEM_mask.* beside STEM.*, or the one of two files with the same stem that has
    hardly any different pixel values.

    Raises:
        DatasetError: An image has two masks beside it, or something with an image's name is not a file.
    """
    stems: dict[str, list[Path]] = defaultdict(list)
    for path in image_files(folder):
        stems[path.stem].append(path)
    masks: dict[str, list[Path]] = defaultdict(list)
    for stem, group in stems.items():
        if (owner := stem_of_image(stem)) != stem and owner in stems:
            masks[owner] += group
        elif len(group) > 1 and len(alike := [path for path in group if _looks_like_a_mask(path)]) == len(group) - 1:
            masks[stem] += alike
    set_aside = {path for group in masks.values() for path in group}
    images = [path for group in stems.values() for path in group if path not in set_aside]
    return {path: only_mask(path, masks.get(path.stem, [])) for path in sorted(images, key=lambda path: path.name)}


def stem_of_image(stem_of_mask: str) -> str:
    """The stem without `_mask` in any case."""
    return stem_of_mask[: -len(MASK_ENDING)] if stem_of_mask.lower().endswith(MASK_ENDING) else stem_of_mask


def only_mask(image: Path, masks: list[Path]) -> Path | None:
    """The one mask of an image, if it has one.

    Raises:
        DatasetError: There are several.
    """
    if len(masks) > 1:
        raise DatasetError(f"{image} has {len(masks)} masks: {', '.join(map(str, masks))}. Keep the one that is right.")
    return masks[0] if masks else None


def folders_in(folder: Path) -> list[Path]:
    """The visible folders directly in a folder, sorted by name; none if it does not exist."""
    return _list(folder, folders=True)


def child(folder: Path, *names: str) -> Path | None:
    """The sub-folder that has one of these names, in any case; `None` if there is none.

    Raises:
        DatasetError: There are several.
    """
    matching = [part for part in folders_in(folder) if part.name.lower() in names]
    if len(matching) > 1:
        raise DatasetError(f"{folder} holds {_few(matching)}, which mean the same. Put their files into one of them.")
    return matching[0] if matching else None


def folders_with_images(folder: Path) -> Iterator[Path]:
    """The folders below a folder, at any depth, and the folder itself, that hold image files; sorted by path."""
    if image_files(folder):
        yield folder
    for part in folders_in(folder):
        yield from folders_with_images(part)


def has_images(folder: Path) -> bool:
    """Whether image files lie in a folder or anywhere below."""
    return next(folders_with_images(folder), None) is not None


def refuse_images(*folders: Path | None) -> None:
    """Raise a `DatasetError` if images lie directly in one of these folders, which should hold folders only."""
    for folder in folders:
        for stray in image_files(folder)[:1] if folder else []:
            known = ", ".join(part.name + "/" for part in folders_in(stray.parent)) or "no folders"
            raise DatasetError(
                f"{stray} lies where only folders are expected (found: {known}). Move it into one of them or remove it."
            )


def refuse_folders(folder: Path | None, expected: Iterable[str] = (), why: str = "") -> None:
    """Raise a `DatasetError` if a folder holds a sub-folder with images that has none of the `expected` names."""
    names = tuple(expected)
    for part in folders_in(folder) if folder else []:
        if part.name.lower() not in names and has_images(part):
            wanted = f"folders named {', '.join(names)}" if names else "images without further folders"
            raise DatasetError(
                f"{part} holds images that belong to no split: {part.parent} should hold {wanted}{why}. Move them up, "
                f"rename the folder, or move it out of the data set."
            )


def contents(folder: Path, limit: int = 8) -> str:
    """What lies in a folder, in a few words for error messages."""
    names = [path.name + "/" for path in folders_in(folder)]
    names += [path.name for path in _list(folder, folders=False, strict=False)]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + more) or "nothing"


def _looks_like_a_mask(path: Path) -> bool:
    return len(np.unique(np.asarray(decode(path).image))) <= _MASK_VALUES


def _few(paths: list[Path], limit: int = 3) -> str:
    more = f" and {len(paths) - limit} more" if len(paths) > limit else ""
    return ", ".join(path.name for path in paths[:limit]) + more


def _list(folder: Path, *, folders: bool, strict: bool = True) -> list[Path]:
    """Visible folders or files directly in `folder`, sorted by name."""
    if not folder.is_dir():
        return []
    try:
        with os.scandir(folder) as entries:
            visible = [e for e in entries if not e.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise DatasetError(f"The folder {folder} cannot be read ({error}). Mend its access rights.") from error
    if folders:
        return [folder / name for name in sorted(e.name for e in visible if e.is_dir())]
    others = sorted((e.name, e.is_file()) for e in visible if not e.is_dir())
    for name, is_file in others:
        if strict and not is_file and Path(name).suffix.lower() in IMAGE_SUFFIXES:
            raise DatasetError(f"{folder / name} is no file (a broken link, a pipe or a device). Replace or remove it.")
    return [folder / name for name, _ in others]
