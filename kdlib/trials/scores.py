"""Scores of image files for use in a line: one row per file, as soon as it is there, and its map as a picture."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdlib.canvas import MAP_COLOURS
from kdlib.data.layout import MASK_NAMES
from kdlib.data.listing import folders_to_walk, image_files, stem_of_image
from kdlib.files import expanded, write_beside
from kdlib.scoring.calibration import Scale
from kdlib.scoring.detector import Detector
from kdlib.scoring.verdict import score
from kdlib.trials.names import folder_name, printable

COLUMNS = ("image", "score", "threshold", "verdict", "map")
BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What a detector says about one file.

    Attributes:
        path: The file.
        verdict: `normal`, `anomalous`, or `error` where it cannot be scored.
        score: Higher is more anomalous; `None` with an error.
        amap: Anomaly map at the image's own size [H, W]; `None` with an error.
        error: Why it cannot be scored.
    """

    path: Path
    verdict: Literal["normal", "anomalous", "error"]
    score: float | None = None
    amap: NDArray[np.float32] | None = None
    error: str = ""


def files(names: Sequence[str], without: Path | None = None, drawn: str = "*") -> list[Path]:
    """The image files behind names of files, of folders (everything below, but for masks) and patterns (`shots/*.png`).

    Each once, in the order of the names and then of the alphabet. What lies below the folder `without` and is named
    like `drawn` is left out: pictures that an earlier call has drawn.

    Raises:
        ValueError: If there are no names, or behind one there is no image.
    """
    own = without.resolve() if without else None
    if not names:
        raise ValueError("there are no images to score; name files, folders or patterns such as 'shots/*.png'")
    found: dict[Path, None] = {}
    for name in names:
        behind = [image for path in _paths(name) for image in (_below(path) if path.is_dir() else [path])]
        behind = [
            image
            for image in behind
            if own is None or not image.resolve().is_relative_to(own) or not image.match(drawn)
        ]
        if not behind:
            raise ValueError(f"there are no images in '{name}'; expected files such as .png, .jpg, .bmp or .tif")
        found |= dict.fromkeys(behind)
    return list(found)


def scored(
    detector: Detector, paths: Sequence[Path], device: str = "auto", precision: str = "auto", full_size: bool = True
) -> Iterator[Scored]:
    """Scores files one batch after the other; a file that cannot be scored does not stop the others."""
    for first in range(0, len(paths), BATCH):
        batch = paths[first : first + BATCH]
        try:
            yield from _batch(detector, batch, device, precision, full_size)
        except (ValueError, OSError):
            for path in batch:
                try:
                    yield from _batch(detector, [path], device, precision, full_size)
                except (ValueError, OSError) as error:
                    place = "" if printable(str(path)) in str(error) else f"{printable(str(path))}: "
                    yield Scored(path=path, verdict="error", error=f"{place}{error}")


def map_names(paths: Sequence[Path]) -> dict[Path, Path]:
    """A relative name for the map of each file: its place below the folder that all of them share, as a PNG."""
    parents = [os.path.abspath(path.parent) for path in paths]
    try:
        shared = os.path.commonpath(parents)
    except ValueError:  # on several drives
        return {path: Path(f"{i:06d}-{folder_name(path.name)}.png") for i, path in enumerate(paths)}
    return {
        path: Path(printable(os.path.relpath(parent, shared)), printable(f"{path.name}.png"))
        for path, parent in zip(paths, parents, strict=True)
    }


def kept(seen: Scored, scale: Scale, path: Path) -> Scored:
    """What was seen, once its map is saved; an error where the file of the map cannot be written."""
    if seen.amap is None:
        return seen
    try:
        save_map(seen.amap, scale, path)
    except OSError as error:
        return Scored(path=seen.path, verdict="error", error=f"{printable(str(seen.path))}: {error}")
    return seen


def save_map(amap: NDArray[np.float32], scale: Scale, path: Path) -> None:
    """A map as a PNG of its size, from black (normal) to bright, all maps of a detector on its one scale."""
    colours = matplotlib.colormaps[MAP_COLOURS](scale.apply(amap), bytes=True)[..., :3]
    picture = Image.fromarray(np.ascontiguousarray(colours))
    write_beside(path, lambda beside: picture.save(beside, format="PNG"))


def _batch(detector: Detector, paths: Sequence[Path], device: str, precision: str, full_size: bool) -> list[Scored]:
    verdict = score(detector, list(paths), full_size=full_size, device=device, precision=precision)
    return [
        Scored(
            path=path,
            verdict="anomalous" if verdict.anomalous[i] else "normal",
            score=float(verdict.scores[i]),
            amap=verdict.maps[i],
        )
        for i, path in enumerate(paths)
    ]


def _paths(name: str) -> list[Path]:
    """What a name stands for; what exists under exactly this name is no pattern."""
    path = expanded(name)
    if path.exists():
        return [path]
    if not glob.has_magic(name):
        raise ValueError(
            f"there is no file or folder '{name}'; mend the name, or quote a pattern such as 'shots/*.png'"
        )
    return [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]


def _below(folder: Path) -> Iterator[Path]:
    """All images in a folder and below it, without masks, which only their names tell: any image may be damaged."""
    found = image_files(folder)
    stems = {path.stem for path in found}
    for path in found:
        owner = stem_of_image(path.stem)
        if owner == path.stem or owner not in stems:
            yield path
    for part in folders_to_walk(folder):
        if part.name.lower() not in MASK_NAMES:
            yield from _below(part)
