"""Rendered sets with defects and pixel-exact masks, in the MVTec AD layout: a workshop's products, a mill's papers.

Every picture comes from generators seeded with (seed, product and folder, index), so it is the same in any order and
with any number of threads. Threads, not processes: they need no guard in scripts and work in notebooks on every system.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from kdlib.course.rendered import brushed_metal, capsule, circuit_board, fabric, hex_nut, paper, tiles
from kdlib.course.rendered.scene import Painter, Shot, shoot
from kdlib.data.generated import Generated

VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Product:
    """A category: how it is painted and the defects it may have."""

    paint: Painter
    defects: tuple[str, ...]


PRODUCTS = {
    "brushed_metal": Product(brushed_metal.paint, brushed_metal.DEFECTS),
    "capsule": Product(capsule.paint, capsule.DEFECTS),
    "circuit_board": Product(circuit_board.paint, circuit_board.DEFECTS),
    "fabric": Product(fabric.paint, fabric.DEFECTS),
    "hex_nut": Product(hex_nut.paint, hex_nut.DEFECTS),
    "tiles": Product(tiles.paint, tiles.DEFECTS),
}
PAPERS = {
    "board": Product(partial(paper.paint, paper.BOARD), paper.DEFECTS),
    "kraft": Product(partial(paper.paint, paper.KRAFT), paper.DEFECTS),
    "rose": Product(partial(paper.paint, paper.ROSE), paper.DEFECTS),
}
SETS = {"workshop": PRODUCTS, "mill": PAPERS}
_KNOWN = PRODUCTS | PAPERS


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Pictures per category: normal ones for training and test, and test pictures of each of the four defects."""

    train: int = 60
    test: int = 20
    per_defect: int = 6


FULL = Counts()


def render(
    root: Path,
    *,
    of: str = "workshop",
    categories: Iterable[str] | None = None,
    seed: int = 0,
    progress: bool = True,
    counts: Counts = FULL,
) -> Path:
    """Render the categories that are not there yet; safe to interrupt and to call again.

    Args:
        root: Folder that receives one folder per category.
        of: The set: "workshop" or "mill".
        categories: Names to render, all of the set by default.
        seed: Another seed gives another set of pictures.
        progress: Whether to show a progress bar.
        counts: Pictures per category.

    Returns:
        `root`.

    Raises:
        ValueError: The set or a category is not known, or its folder holds pictures of another seed or other counts.
        FileExistsError: A folder of a category's name was not written by this function.
    """
    if of not in SETS:
        raise ValueError(f"unknown set '{of}'; known are {', '.join(SETS)}")
    root, names = Path(root), tuple(SETS[of]) if categories is None else tuple(categories)
    for name in names:
        if name not in SETS[of]:
            raise ValueError(f"unknown {of} category '{name}'; known are {', '.join(SETS[of])}")
    missing = [name for name in names if not _complete(root / name, seed, counts)]
    if missing:
        root.mkdir(parents=True, exist_ok=True)
        total = len(missing) * (counts.train + counts.test + 4 * counts.per_defect)
        hidden = None if progress else True  # None: no bar where the output is a file or a pipe
        with tqdm(total=total, desc="rendering", unit="image", disable=hidden) as bar:
            for name in missing:
                _render_category(root, name, seed, counts, bar)
    return root


def picture(
    name: str, *, seed: int = 0, split: str = "train", defect: str | None = None, index: int = 0, of: int = 6
) -> Shot:
    """One picture of the set with its defect-free twin and mask; `split` counts for normal pictures only.

    Args:
        name: Category.
        seed: Seed of the set.
        split: "train" or "test".
        defect: Defect type, or None for a normal picture.
        index: Number of the picture within its folder.
        of: Pictures of that defect; severity rises with `index` from faint to obvious.
    """
    folder = defect or split
    key = [seed, zlib.crc32(f"{name}/{folder}".encode()), index]
    severity = (index + np.random.default_rng([*key, 99]).uniform()) / of
    return shoot(_KNOWN[name].paint, key, defect, float(severity))


def _complete(folder: Path, seed: int, counts: Counts) -> bool:
    """Whether the category is there. Pictures of an older version of the renderer count as missing."""
    if not folder.exists():
        return False
    if not (folder / MANIFEST).is_file():
        raise FileExistsError(
            f"{folder} has no {MANIFEST}: not written by the workshop; move it or choose another root"
        )
    found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    wanted = {"version": VERSION, "seed": seed, "counts": asdict(counts)}
    if found == wanted:
        return True
    if found["version"] != VERSION:
        return False
    raise ValueError(f"{folder} was rendered with {found}, but {wanted} is asked for; delete it or choose another root")


def _jobs(name: str, counts: Counts) -> Iterator[tuple[str, str | None, int]]:
    """(split, defect, index) of every picture of a category."""
    yield from (("train", None, i) for i in range(counts.train))
    yield from (("test", None, i) for i in range(counts.test))
    yield from (("test", defect, i) for defect in _KNOWN[name].defects for i in range(counts.per_defect))


def _render_category(root: Path, name: str, seed: int, counts: Counts, bar: tqdm) -> None:
    """Render a category beside its place and move it there when it is complete."""
    with tempfile.TemporaryDirectory(dir=root, prefix=".rendering-", ignore_cleanup_errors=True) as temporary:
        folder, target = Path(temporary) / name, root / name

        def write(job: tuple[str, str | None, int]) -> None:
            split, defect, index = job
            _write(folder, job, picture(name, seed=seed, split=split, defect=defect, index=index, of=counts.per_defect))
            bar.update()

        with ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2))) as pool:
            try:
                list(pool.map(write, _jobs(name, counts)))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        manifest = {"version": VERSION, "seed": seed, "counts": asdict(counts)}
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2), encoding="utf-8")
        if target.exists() and not _complete(target, seed, counts):
            shutil.rmtree(target)
        if not target.exists():
            os.replace(folder, target)


def _write(folder: Path, job: tuple[str, str | None, int], shot: Shot) -> None:
    """Save picture and mask under the names of the MVTec AD layout."""
    split, defect, index = job
    image = folder / split / (defect or "good") / f"{index:03d}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(shot.image).save(image, compress_level=3)
    if defect and shot.mask is not None:
        mask = folder / "ground_truth" / defect / f"{index:03d}_mask.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shot.mask.astype(np.uint8) * 255).save(mask)


def _make(of: str, root: Path, categories: Iterable[str] | None) -> None:
    render(root, of=of, categories=categories)


WORKSHOP = Generated(make=partial(_make, "workshop"), licence="Apache-2.0, rendered by kdlib")
MILL = Generated(make=partial(_make, "mill"), licence="Apache-2.0, rendered by kdlib")
