"""Maps, scores and metrics of a model on labelled images. The test set is touched here, and nowhere else.

A result keeps all maps and masks where they take no more than `KEEP` bytes: 3,200 images of 256 px. Of larger sets the
pixels are counted as they come, which gives the same metrics in bounded memory, and only the maps asked for are kept.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from kdlib.data.records import ImageSet
from kdlib.runtime import Runtime, choose, synchronise
from kdlib.scoring.pixel_counts import MEMORY, PixelCounts
from kdlib.scoring.result import METRICS as METRICS
from kdlib.scoring.result import Result, has_masks, metrics_of

KEEP = 2**30  # bytes
Keep: TypeAlias = Literal["auto", "all", "none"] | Sequence[int] | NDArray[np.integer]


class Mapper(Protocol):
    """Whatever turns images into anomaly maps: a method, a baseline, a detector."""

    def anomaly_map(self, x: Tensor) -> Tensor: ...

    def image_score(self, amap: Tensor) -> Tensor: ...


def evaluate(
    model: Mapper,
    images: ImageSet,
    *,
    keep: Keep = "auto",
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 16,
    workers: int = 0,
) -> Result:
    """Scores every image of a set.

    Args:
        model: A trained distiller, a baseline or a detector.
        images: Normal and anomalous images.
        keep: Whose maps and masks the result holds: `all`, `none`, those of images at some positions, or `auto`, all
            where they take no more than `KEEP` bytes, and else none. The metrics do not depend on it.
        device: See `kdlib.runtime.choose`.
        precision: See `kdlib.runtime.choose`; `auto` takes that of the calibration where the model is a detector.
            Maps and scores come out in float32 whatever it is.
        batch_size: Images at a time; the result depends on it by rounding only.
        workers: Processes that read images.

    Raises:
        ValueError: If there are no images, `keep` is none of these, or a map or score is NaN or infinite.
    """
    if not len(images):
        raise ValueError("there are no images to evaluate; expected at least one")
    collected = _Collected(images, _positions(keep, images))
    runtime = choose(device, precision if precision != "auto" else getattr(model, "precision", "auto"))
    if isinstance(model, torch.nn.Module):
        runtime.prepare(model.eval())
    seconds = 0.0
    for items in DataLoader(images, batch_size, num_workers=workers):
        start = time.perf_counter()
        maps, scores = predict(model, items["image"], runtime)
        seconds += time.perf_counter() - start
        check_predictions(maps, scores, [f"'{images.samples[i].path}'" for i in items["index"].tolist()])
        collected.add(maps.numpy(), scores.numpy(), items["mask"][:, 0].numpy())
    return collected.result(seconds)


def predict(model: Mapper, x: Tensor, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Maps [B, H, W] and scores [B] of images `x` [B, 3, H, W], float32 on the CPU."""
    with torch.inference_mode():
        with runtime.autocast():
            amap = model.anomaly_map(runtime.images(x)).float()
        score = model.image_score(amap)
        synchronise(runtime.device)
    return amap[:, 0].cpu(), score.float().cpu()


def check_predictions(maps: Tensor, scores: Tensor, names: Sequence[str]) -> None:
    """Refuses maps [B, H, W] and scores [B] that are no numbers: no threshold would ever call them anomalous.

    Raises:
        ValueError: If a value is NaN or infinite.
    """
    broken = ~(torch.isfinite(maps).flatten(1).all(1) & torch.isfinite(scores))
    if broken.any():
        raise ValueError(
            f"the anomaly maps of {int(broken.sum())} of {len(names)} images have NaN or infinite values, first that "
            f"of {names[int(broken.nonzero()[0])]}; the model's weights are damaged or its training diverged: train it "
            "anew with a lower learning rate, or score in fp32"
        )


class _Collected:
    """Scores, and the maps to keep, as batches come in; pixels are counted unless all maps are kept.

    Everything is copied into arrays made beforehand: small pieces kept from each batch would scatter the memory.
    """

    def __init__(self, images: ImageSet, positions: NDArray[np.int64]) -> None:
        self.samples, self.positions = images.samples, positions
        self.scores = np.empty(len(self.samples), dtype=np.float32)
        self.defect_pixels = np.empty(len(self.samples), dtype=np.int64)
        self.maps = np.empty((len(positions), *images.size), dtype=np.float32)
        self.masks = np.empty((len(positions), *images.size), dtype=bool)
        self.seen = self.kept = 0
        self.to_come = Counter(sample.category for sample in self.samples)
        self.counts: dict[str, PixelCounts] = {}
        self.counted: dict[str, dict[str, float]] = {}
        if len(positions) < len(self.samples):
            categories = [c for c in self.to_come if has_masks([s for s in self.samples if s.category == c])]
            self.counts = {c: PixelCounts(MEMORY // len(categories)) for c in categories}

    def add(self, maps: NDArray[np.float32], scores: NDArray[np.float32], masks: NDArray[np.bool_]) -> None:
        for amap, score, mask in zip(maps, scores, masks, strict=True):
            image = self.seen
            self.seen += 1
            self.scores[image], self.defect_pixels[image] = score, np.count_nonzero(mask)
            if self.kept < len(self.positions) and self.positions[self.kept] == image:
                self.maps[self.kept], self.masks[self.kept] = amap, mask
                self.kept += 1
            self._count(self.samples[image].category, amap, mask)

    def _count(self, category: str, amap: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        self.to_come[category] -= 1
        if category in self.counts:
            self.counts[category].add(amap, mask)
            if not self.to_come[category]:
                self.counted[category] = metrics_of(self.counts.pop(category))

    def result(self, seconds: float) -> Result:
        return Result(
            scores=self.scores,
            samples=self.samples,
            defect_pixels=self.defect_pixels,
            seconds=seconds,
            kept=self.positions,
            kept_maps=self.maps,
            kept_masks=self.masks,
            counted=self.counted if len(self.positions) < len(self.samples) else None,
        )


def _positions(keep: Keep, images: ImageSet) -> NDArray[np.int64]:
    """Positions of the images whose maps are kept, rising."""
    count = len(images)
    if isinstance(keep, str):
        if keep not in ("auto", "all", "none"):
            raise ValueError(f"keep is '{keep}'; expected auto, all, none, or positions of images, like [0, 5]")
        everything = keep == "all" or (keep == "auto" and count <= fitting(images.size))
        return np.arange(count if everything else 0)
    positions = np.unique(np.asarray(keep, dtype=np.int64)) if len(keep) else np.arange(0)
    if np.asarray(keep).dtype.kind not in "iu" and len(keep):
        raise ValueError(f"keep holds {np.asarray(keep).dtype} values; expected positions of images, like [0, 5]")
    if len(positions) and not 0 <= positions[0] <= positions[-1] < count:
        raise ValueError(f"keep holds positions {positions[0]} to {positions[-1]}; expected 0 to {count - 1}")
    return positions


def fitting(size: tuple[int, int]) -> int:
    """How many maps and masks of this size fit into `KEEP` bytes."""
    return KEEP // (5 * size[0] * size[1])
