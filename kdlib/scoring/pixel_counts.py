"""Good and defect pixels of any number of maps, counted exactly by score in bounded memory.

    add(map [H, W], mask [H, W])   scores of good and of defect pixels, as sorted runs
    thresholds()                   every distinct score of a defect pixel, falling, and how many pixels it meets

A threshold that falls from the highest score to the lowest meets a few defect pixels and millions of good ones. The
curves bend only where a defect pixel is met; of the good pixels in between, only their number counts. So good pixels
are sorted in runs and never looked at again: two binary searches per run and distinct defect score count them.

Runs are held in memory up to a given number of bytes and in mapped temporary files beyond it: 4 bytes per pixel of
float32 maps.
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
_STRIDE = 1024  # every so manieth score of a run is looked at to find where blocks end


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
        self._memory = memory
        self._good = _Runs(np.sort, GOOD_RUN, self._hold)
        self._defect = _Runs(_distinct, DEFECT_RUN, self._hold)

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
            scores = met["score"].copy()
            above, reached = np.zeros((2, scores.size), dtype=np.int64)
            for run in good:
                reached += run.size - np.searchsorted(run, scores, side="left")
                above += run.size - np.searchsorted(run, scores, side="right")
            yield Thresholds(above[::-1], reached[::-1], met["pixels"][::-1], met["share"][::-1] / self.regions)

    def _hold(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array, or its like in a file where the memory is used up."""
        if array.nbytes <= self._memory:
            self._memory -= array.nbytes
            return array
        with tempfile.TemporaryFile(prefix="kdlib-") as file:  # which lives as long as its map
            try:
                array.tofile(file)
            except OSError as error:
                raise OSError(
                    f"no room for {array.nbytes / 2**20:.0f} MiB of sorted pixels in '{tempfile.gettempdir()}' "
                    f"({error}); set TMPDIR to a folder with more room"
                ) from error
            return np.memmap(file, array.dtype, "r", shape=array.shape)


class _Runs:
    """Pixels as they come in, put together into sorted runs of one length; the last one is shorter.

    They wait in one buffer: many small arrays, kept for long between others, would scatter the memory.
    """

    def __init__(
        self,
        order: Callable[[NDArray[Any]], NDArray[Any]],
        length: int,
        hold: Callable[[NDArray[Any]], NDArray[Any]],
    ) -> None:
        self.added = 0
        self._order, self._length, self._hold = order, length, hold
        self._runs: list[NDArray[Any]] = []
        self._buffer: NDArray[Any] = np.empty(0)
        self._waiting = 0

    def add(self, part: NDArray[Any]) -> None:
        self.added += part.size
        if part.dtype != self._buffer.dtype or not self._buffer.size:
            self._close()
            self._buffer = np.empty(self._length, part.dtype)
        while part.size:
            taken = part[: self._length - self._waiting]
            self._buffer[self._waiting : self._waiting + taken.size] = taken
            self._waiting += taken.size
            part = part[taken.size :]
            if self._waiting == self._length:
                self._close()

    def finished(self) -> list[NDArray[Any]]:
        """All runs."""
        self._close()
        return self._runs

    def _close(self) -> None:
        if self._waiting:
            self._runs.append(self._hold(self._order(self._buffer[: self._waiting])))
        self._waiting = 0


def _met(scores: NDArray[Any], pixels: int | Counts, share: NDArray[Any]) -> NDArray[Any]:
    met = np.empty(scores.size, dtype=[("score", scores.dtype), ("pixels", np.int64), ("share", np.float64)])
    met["score"], met["pixels"], met["share"] = scores, pixels, share
    return met


def _distinct(met: NDArray[Any]) -> NDArray[Any]:
    """Every score once, rising, with its pixels and shares summed."""
    scores, inverse = np.unique(met["score"], return_inverse=True)
    pixels = np.bincount(inverse, weights=met["pixels"], minlength=scores.size).astype(np.int64)
    return _met(scores, pixels, np.bincount(inverse, weights=met["share"], minlength=scores.size))


def _blocks(runs: list[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """What `_distinct` makes of all runs together, in blocks of about `BLOCK` scores, from the highest block down."""
    marks = np.sort(np.concatenate([run["score"][::_STRIDE] for run in runs]))
    edges = np.unique(np.concatenate([[-np.inf], marks[:: BLOCK // _STRIDE], [np.inf]]).astype(marks.dtype))
    for low, high in zip(edges[-2::-1], edges[:0:-1], strict=True):
        parts = []
        for run in runs:
            start, stop = np.searchsorted(run["score"], [low, high], side="left")
            parts.append(run[start:stop])
        if any(part.size for part in parts):
            yield _distinct(np.concatenate(parts))


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
