"""What lies on disk of a rendered category: the pictures it should have, its manifest, what a kill left behind.

A category is rendered beside its place and moved there when it is complete. One process at a time renders below a root;
whatever lies beside when it begins was left by one that was killed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from kdlib.course.rendered.scene import Shot

VERSION = 1
MANIFEST = "manifest.json"
_LOCK = ".rendering.lock"
_BESIDE = ".rendering-"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Pictures per category: normal ones for training and test, and test pictures of each of the four defects."""

    train: int = 60
    test: int = 20
    per_defect: int = 6


@dataclass(frozen=True, kw_only=True)
class World:
    """Which pictures a root holds of every category.

    Attributes:
        seed: Of the training pictures, and of the test pictures where they have none of their own.
        test_seed: Another seed gives fresh test pictures of the same products.
        counts: Pictures per category.
    """

    seed: int = 0
    test_seed: int | None = None
    counts: Counts = field(default_factory=Counts)

    def seed_of(self, place: Place) -> int:
        """The seed that a picture is painted with."""
        return self.seed if place.split == "train" or self.test_seed is None else self.test_seed

    def described(self) -> dict[str, Any]:
        """As a manifest keeps it."""
        seed = self.seed if self.test_seed is None else [self.seed, self.test_seed]
        return {"version": VERSION, "seed": seed, "counts": asdict(self.counts)}


@dataclass(frozen=True)
class Place:
    """Where a picture of a category belongs in the MVTec AD layout.

    Attributes:
        split: `train` or `test`.
        defect: Kind of defect; `None` for a normal picture.
        index: Number of the picture within its folder.
    """

    split: str
    defect: str | None
    index: int

    @property
    def image(self) -> str:
        """Path of the picture below its category."""
        return f"{self.split}/{self.defect or 'good'}/{self.index:03d}.png"

    @property
    def mask(self) -> str | None:
        """Path of its mask below its category; normal pictures have none."""
        return f"ground_truth/{self.defect}/{self.index:03d}_mask.png" if self.defect else None

    def write(self, folder: Path, shot: Shot) -> None:
        """Saves picture and mask below the category's folder."""
        image = folder / self.image
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shot.image).save(image, compress_level=3)
        if self.mask and shot.mask is not None:
            mask = folder / self.mask
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shot.mask.astype(np.uint8) * 255).save(mask)


def places(defects: tuple[str, ...], counts: Counts) -> list[Place]:
    """All pictures of a category with these defects."""
    normal = [Place(split, None, i) for split in ("train", "test") for i in range(getattr(counts, split))]
    return normal + [Place("test", defect, i) for defect in defects for i in range(counts.per_defect)]


def complete(folder: Path, defects: tuple[str, ...], world: World) -> bool:
    """Whether a category is there with all its files; one of an older version of the renderer counts as missing.

    Raises:
        FileExistsError: If the folder was not written by kdlib.
        ValueError: If its manifest is damaged, or it holds pictures of another seed or other counts.
    """
    if not folder.exists():
        return False
    stored, wanted = _manifest(folder), world.described()
    if stored["version"] != VERSION:
        return False
    if stored != wanted:
        raise ValueError(
            f"{folder} was rendered with {stored}, but {wanted} is asked for; delete it or choose another root"
        )
    return all(_has(folder, place) for place in places(defects, world.counts))


def finish(folder: Path, target: Path, world: World) -> None:
    """Writes the manifest of a rendered category and moves it to its place; an incomplete one there goes."""
    (folder / MANIFEST).write_text(json.dumps(world.described(), indent=2), encoding="utf-8")
    if target.exists():
        os.replace(target, beside(target.parent, f"{target.name}-old"))
    os.replace(folder, target)


def beside(root: Path, name: str) -> Path:
    """Folder below `root` for what is not yet, or no longer, in its place."""
    return root / f"{_BESIDE}{name}"


def leftovers(root: Path) -> list[Path]:
    """Folders that lie beside: those of a process that renders now, or that was killed."""
    return [path for path in root.glob(f"{_BESIDE}*") if path.is_dir()]


@contextmanager
def alone(root: Path, *, wait: bool) -> Iterator[bool]:
    """Holds the lock of a root, as no other process can meanwhile; a process that dies lets it go.

    Yields whether it is held; False only without `wait`, where another process has it.
    """
    root.mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            yield False
            return
        print(f"another process is rendering into {root}; waiting until it is done")
        lock.acquire()
    try:
        _clear(root)
        yield True
    finally:
        _clear(root)
        lock.release()


def _clear(root: Path) -> None:
    """Removes all that lies beside; only for the holder of the lock."""
    for path in leftovers(root):
        shutil.rmtree(path, ignore_errors=True)


def _has(folder: Path, place: Place) -> bool:
    """Whether picture and mask are there; a file that a full disc left empty is not."""
    names = [place.image, place.mask] if place.mask else [place.image]
    return all(_size(folder / name) > 0 for name in names)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise FileExistsError(f"{folder} has no {MANIFEST}: kdlib did not write it; move it or choose another root")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete {folder} to have it rendered again") from error
    if not isinstance(stored, dict) or set(stored) != {"version", "seed", "counts"}:
        raise FileExistsError(
            f"{path} holds {str(stored)[:80]}; expected version, seed and counts: kdlib did not write it; move it "
            "or choose another root"
        )
    return stored
