"""Good and defect pixels of any number of maps, counted exactly by score in bounded memory.

    add(map [H, W], mask [H, W])   scores of good and of defect pixels, as sorted runs
    thresholds()                   every distinct score of a defect pixel, falling, and how many pixels it meets

A threshold that falls from the highest score to the lowest meets a few defect pixels and millions of good ones. The
curves bend only where a defect pixel is met; of the good pixels in between, only their number counts. So good pixels
are sorted in runs and never looked at again: two binary searches per run and distinct defect score count them.

Runs are held in memory up to a given number of bytes and in temporary files beyond it: 4 bytes per pixel of float32
maps. Of a file, no more than one run is read at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.floating]
Counts = NDArray[np.int64]
EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)
MEMORY = 2**28  # bytes
GOOD_RUN, DEFECT_RUN = 2**24, 2**20  # pixels
BLOCK = 2**20  # thresholds
_STRIDE = 1024  # every so manieth value of a run stays in memory


class Thresholds(NamedTuple):
    """Distinct scores of defect pixels, falling, and what each of them meets, [U] each.

    Attributes:
        above: Good pixels above the score.
        reached: Good pixels at or above it.
        pixels: Defect pixels with exactly this score.
        share: What these add to the mean share of a region that is found.
    """

    above: Counts
    reached: Counts
    pixels: Counts
    share: Floats


class PixelCounts:
    """Counts of good and defect pixels by score.

    Args:
        memory: Bytes of sorted pixels held in memory; further ones go to temporary files.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self.images = self.regions = 0
        store = _Store(memory)
        self._good = _Runs(lambda parts: np.sort(np.concatenate(parts)), GOOD_RUN, store)
        self._defect = _Runs(_distinct, DEFECT_RUN, store)

    @property
    def good(self) -> int:
        """Number of defect-free pixels."""
        return self._good.added

    @property
    def defect(self) -> int:
        """Number of defective pixels."""
        return self._defect.added

    def add(self, amap: NDArray[Any], mask: NDArray[Any]) -> None:
        """Takes in one map [H, W] and its mask [H, W]; True, or anything above 0, is defective.

        Raises:
            ValueError: Shapes that differ, blended mask values, NaN or infinite scores.
        """
        scores, truth = _checked(np.asarray(amap), np.asarray(mask), self.images)
        self.images += 1
        if not truth.any():
            self._good.add(scores.ravel())
            return
        regions, count = ndimage.label(truth, EIGHT_NEIGHBOURS)
        self.regions += count
        inside = regions[truth]
        self._good.add(scores[~truth])
        self._defect.add(_met(scores[truth], 1, 1 / np.bincount(inside)[inside]))

    def thresholds(self) -> Iterator[Thresholds]:
        """All distinct scores of defect pixels, falling, in blocks.

        Raises:
            ValueError: No defective or no defect-free pixel.
        """
        if not self.defect:
            raise ValueError(f"found no defective pixel in {self.images} masks; expected some: add defective images")
        if not self.good:
            raise ValueError("found no defect-free pixel; expected some, for a false-positive rate: invert the masks?")
        good = self._good.finished()
        for met in _blocks(self._defect.finished()):
            scores = met["score"]
            above, reached = np.zeros((2, scores.size), dtype=np.int64)
            for run in good:
                start, part = run.between(scores[0], scores[-1])
                reached += run.size - start - np.searchsorted(part, scores, side="left")
                above += run.size - start - np.searchsorted(part, scores, side="right")
            yield Thresholds(above[::-1], reached[::-1], met["pixels"][::-1], met["share"][::-1] / self.regions)


class _Store:
    """Holds arrays in memory up to a number of bytes, and further ones in temporary files."""

    def __init__(self, memory: int) -> None:
        self._memory = memory

    def hold(self, array: NDArray[Any]) -> _Run:
        if array.nbytes <= self._memory:
            self._memory -= array.nbytes
            return _Run(array)
        file = tempfile.TemporaryFile(prefix="kdlib-")  # noqa: SIM115 - closed, and so removed, with its run
        try:
            array.tofile(file)
        except OSError as error:
            raise OSError(
                f"no room for {array.nbytes / 2**20:.0f} MiB of sorted pixels in '{tempfile.gettempdir()}' ({error}); "
                "set TMPDIR to a folder with more room"
            ) from error
        return _Run(array, file)


class _Run:
    """One sorted array, in memory or in a file."""

    def __init__(self, array: NDArray[Any], file: Any = None) -> None:
        self.size, self.dtype = array.size, array.dtype
        self.index = _scores(array)[::_STRIDE].copy()
        self._array = array if file is None else None
        self._file: Any = file

    def between(self, low: Any, high: Any) -> tuple[int, NDArray[Any]]:
        """A part of the array with every value from `low` to `high`, and how many values lie before it."""
        start = _STRIDE * max(int(np.searchsorted(self.index, low, side="left")) - 1, 0)
        stop = min(_STRIDE * int(np.searchsorted(self.index, high, side="right")), self.size)
        if self._array is not None:
            return start, self._array[start:stop]
        self._file.seek(start * self.dtype.itemsize)
        return start, np.fromfile(self._file, self.dtype, count=stop - start)


class _Runs:
    """Pixels as they come in, put together into sorted runs of about the same length."""

    def __init__(self, combine: Callable[[list[NDArray[Any]]], NDArray[Any]], length: int, store: _Store) -> None:
        self.added = 0
        self._combine, self._length, self._store = combine, length, store
        self._runs: list[_Run] = []
        self._parts: list[NDArray[Any]] = []
        self._waiting = 0

    def add(self, part: NDArray[Any]) -> None:
        self._parts.append(part)
        self._waiting += part.size
        self.added += part.size
        if self._waiting >= self._length:
            self._close()

    def finished(self) -> list[_Run]:
        """All runs."""
        if self._waiting:
            self._close()
        return self._runs

    def _close(self) -> None:
        self._runs.append(self._store.hold(self._combine(self._parts)))
        self._parts, self._waiting = [], 0


def _met(scores: NDArray[Any], pixels: int | Counts, share: NDArray[Any]) -> NDArray[Any]:
    met = np.empty(scores.size, dtype=[("score", scores.dtype), ("pixels", np.int64), ("share", np.float64)])
    met["score"], met["pixels"], met["share"] = scores, pixels, share
    return met


def _distinct(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Every score once, rising, with its pixels and shares summed."""
    whole = np.concatenate(parts)
    scores, inverse = np.unique(whole["score"], return_inverse=True)
    pixels = np.bincount(inverse, weights=whole["pixels"], minlength=scores.size).astype(np.int64)
    return _met(scores, pixels, np.bincount(inverse, weights=whole["share"], minlength=scores.size))


def _blocks(runs: list[_Run]) -> Iterator[NDArray[Any]]:
    """What `_distinct` makes of all runs together, in blocks of about `BLOCK` scores, from the highest block down."""
    marks = np.sort(np.concatenate([run.index for run in runs]))
    edges = np.unique(np.concatenate([[-np.inf], marks[:: BLOCK // _STRIDE], [np.inf]]).astype(marks.dtype))
    for low, high in zip(edges[-2::-1], edges[:0:-1], strict=True):
        parts = []
        for run in runs:
            _, part = run.between(low, high)
            scores = _scores(part)
            parts.append(part[np.searchsorted(scores, low, side="left") : np.searchsorted(scores, high, side="left")])
        if sum(part.size for part in parts):
            yield _distinct(parts)


def _scores(array: NDArray[Any]) -> NDArray[Any]:
    return array["score"] if array.dtype.names else array


def _checked(amap: NDArray[Any], mask: NDArray[Any], index: int) -> tuple[Floats, NDArray[np.bool_]]:
    if amap.ndim != 2 or amap.shape != mask.shape:
        raise ValueError(
            f"image {index}: the map has shape {amap.shape}, the mask {mask.shape}; expected the same [H, W] for both: "
            "drop a channel axis with maps[:, 0], resize the map to the mask"
        )
    if mask.dtype.kind == "f" and not np.isin(mask, (0, 1, 255)).all():
        raise ValueError(f"image {index}: found blended mask values; expected 0 and 1: resize masks with 'nearest'")
    # float32 keeps its type: the order is the same as in float64, and sorting takes half the time.
    scores = amap if amap.dtype in (np.float32, np.float64) else amap.astype(np.float64)
    check_finite(scores, f"image {index}: scores of the map")
    return scores, mask > 0


def check_finite(values: Floats, name: str) -> None:
    """Refuses what is no number.

    Raises:
        ValueError: If a value is NaN or infinite.
    """
    broken = np.count_nonzero(~np.isfinite(values))
    if broken:
        found = f"{broken} of {values.size} are NaN or infinite"
        raise ValueError(f"{name}: {found}; expected finite numbers: check the images and lower the learning rate")
