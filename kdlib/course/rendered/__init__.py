"""Rendered sets with defects and pixel-exact masks, in the MVTec AD layout: a workshop's products, a mill's papers.

`workshop` and `mill` are for tuning: whoever chose a setting has looked at their test pictures. `workshop_report` and
`mill_report` have the same training pictures and fresh, more test pictures; numbers are reported on them, and nothing
is chosen by them.

Every picture comes from generators seeded with (seed, product and folder, index), so it is the same in any order and
with any number of threads. Threads, not processes: they need no guard in scripts and work in notebooks on every system.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from kdlib.course.rendered import brushed_metal, capsule, circuit_board, fabric, hex_nut, paper, store, tiles
from kdlib.course.rendered.scene import Painter, Shot, shoot
from kdlib.course.rendered.store import Counts, Place, World
from kdlib.data.generated import Generated


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


TUNING = World()
REPORT = World(test_seed=1, counts=Counts(test=60, per_defect=24))


def render(
    root: Path,
    *,
    of: str = "workshop",
    categories: Iterable[str] | None = None,
    seed: int = 0,
    test_seed: int | None = None,
    progress: bool = True,
    counts: Counts = TUNING.counts,
) -> Path:
    """Renders the categories that are not there yet, or not whole; safe to interrupt and to call again.

    Args:
        root: Folder that receives one folder per category.
        of: The set: `workshop` or `mill`.
        categories: Names to render, all of the set by default.
        seed: Another seed gives another set of pictures.
        test_seed: Another seed for the test pictures alone; `None` is `seed`.
        progress: Whether to show a progress bar.
        counts: Pictures per category.

    Returns:
        `root`.

    Raises:
        ValueError: If the set or a category is not known, or a category's folder has a damaged manifest or holds
            pictures of another seed or other counts; each root holds one world.
        FileExistsError: If a folder of a category's name was not written by this function.
    """
    root, products = Path(root), _chosen(of, categories)
    world = World(seed=seed, test_seed=test_seed, counts=counts)
    missing = _missing(root, products, world)
    tidy = not store.leftovers(root) or not os.access(root, os.W_OK)
    if not missing and tidy:
        return root
    with store.alone(root, wait=bool(missing)):
        missing = _missing(root, products, world)  # another process may have rendered them by now
        total = sum(len(store.places(product.defects, counts)) for product in missing.values())
        hidden = None if progress and missing else True  # None: no bar where the output is a file or a pipe
        with tqdm(total=total, desc="rendering", unit="image", disable=hidden) as bar:
            for name in missing:
                _render_category(root, name, world, bar)
    return root


def picture(
    name: str, *, seed: int = 0, split: str = "train", defect: str | None = None, index: int = 0, of: int = 6
) -> Shot:
    """One picture of the set with its defect-free twin and mask; `split` counts for normal pictures only.

    Args:
        name: Category.
        seed: Seed of the set.
        split: `train` or `test`.
        defect: Defect type, or `None` for a normal picture.
        index: Number of the picture within its folder.
        of: Pictures of that defect; severity rises with `index` from faint to obvious.
    """
    folder = defect or split
    key = [seed, zlib.crc32(f"{name}/{folder}".encode()), index]
    severity = (index + np.random.default_rng([*key, 99]).uniform()) / of
    return shoot(_KNOWN[name].paint, key, defect, float(severity))


def _chosen(of: str, categories: Iterable[str] | None) -> dict[str, Product]:
    """The products to render, by name."""
    if of not in SETS:
        raise ValueError(f"unknown set '{of}'; known are {', '.join(SETS)}")
    known = SETS[of]
    names = tuple(known) if categories is None else tuple(categories)
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {of} category '{name}'; known are {', '.join(known)}")
    return {name: known[name] for name in names}


def _missing(root: Path, products: dict[str, Product], world: World) -> dict[str, Product]:
    return {n: p for n, p in products.items() if not store.complete(root / n, p.defects, world)}


def _render_category(root: Path, name: str, world: World, bar: tqdm) -> None:
    """Renders a category beside its place and moves it there when it is complete."""
    folder = store.beside(root, name)

    def write(place: Place) -> None:
        seed, severities = world.seed_of(place), world.counts.per_defect
        shot = picture(name, seed=seed, split=place.split, defect=place.defect, index=place.index, of=severities)
        place.write(folder, shot)
        bar.update()

    with ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2))) as pool:
        try:
            list(pool.map(write, store.places(_KNOWN[name].defects, world.counts)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    store.finish(folder, root / name, world)


def _generated(of: str, world: World) -> Generated:
    def make(root: Path, categories: Iterable[str] | None) -> None:
        render(root, of=of, categories=categories, counts=world.counts, seed=world.seed, test_seed=world.test_seed)

    return Generated(make=make, licence="Apache-2.0, rendered by kdlib")


WORKSHOP, WORKSHOP_REPORT = _generated("workshop", TUNING), _generated("workshop", REPORT)
MILL, MILL_REPORT = _generated("mill", TUNING), _generated("mill", REPORT)
