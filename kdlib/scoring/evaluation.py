"""Maps, scores and metrics of a model on labelled images. The test set is touched here, and nowhere else.

A result keeps all maps and masks where they take no more than `KEEP` bytes: 3,200 images of 256 px. Of larger sets the
pixels are counted as they come, which gives the same metrics in bounded memory, and only the maps asked for are kept.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from kdlib.config import check_kind
from kdlib.data.records import ImageSet
from kdlib.runtime import Runtime, choose
from kdlib.scoring.pixel_counts import MEMORY, PixelCounts
from kdlib.scoring.result import METRICS as METRICS
from kdlib.scoring.result import Result, metrics_of

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
    check_kind("images", images, ImageSet, "an image set, such as data.test")
    if not len(images):
        raise ValueError("there are no images to evaluate; expected at least one")
    result = _empty(images, _positions(keep, images))
    rows = {image: row for row, image in enumerate(result.kept.tolist())}
    counting = _Counting(images, result.counted) if result.counted is not None else None
    runtime = choose(device, precision if precision != "auto" else getattr(model, "precision", "auto"))
    if isinstance(model, torch.nn.Module):
        runtime.prepare(model.eval())
    seconds = 0.0
    for items in DataLoader(images, batch_size, num_workers=workers):
        start, index = time.perf_counter(), items["index"].tolist()
        maps, scores = predict(model, items["image"], runtime, [f"'{images.samples[i].path}'" for i in index])
        seconds += time.perf_counter() - start
        result.scores[index] = scores
        for i, amap, mask in zip(index, maps.numpy(), items["mask"][:, 0].numpy(), strict=True):
            result.defect_pixels[i] = np.count_nonzero(mask)
            if i in rows:
                result.kept_maps[rows[i]], result.kept_masks[rows[i]] = amap, mask
            if counting:
                counting.add(images.samples[i].category, amap, mask)
    return replace(result, seconds=seconds)


def predict(model: Mapper, x: Tensor, runtime: Runtime, names: Sequence[str] | None = None) -> tuple[Tensor, Tensor]:
    """Maps [B, H, W] and scores [B] of images `x` [B, 3, H, W], float32 on the CPU; errors call images by `names`.

    Raises:
        ValueError: If a value is NaN or infinite: no threshold would ever call it anomalous.
    """
    with torch.inference_mode():
        with runtime.autocast():
            amap = model.anomaly_map(runtime.images(x)).float()
        scores = model.image_score(amap).float().cpu()
    maps = amap[:, 0].cpu()
    broken = ~(torch.isfinite(maps).flatten(1).all(1) & torch.isfinite(scores))
    if broken.any():
        first = int(broken.nonzero()[0])
        raise ValueError(
            f"the anomaly maps of {int(broken.sum())} of {len(x)} images have NaN or infinite values, first that of "
            f"{names[first] if names else f'image {first}'}; train the model anew with a lower learning rate, or score "
            "in fp32"
        )
    return maps, scores


def _empty(images: ImageSet, kept: NDArray[np.int64]) -> Result:
    """Whole arrays made beforehand: small pieces kept from each batch would scatter the memory."""
    return Result(
        scores=np.empty(len(images), dtype=np.float32),
        samples=images.samples,
        defect_pixels=np.empty(len(images), dtype=np.int64),
        seconds=0.0,
        kept=kept,
        kept_maps=np.empty((len(kept), *images.size), dtype=np.float32),
        kept_masks=np.empty((len(kept), *images.size), dtype=bool),
        counted={} if len(kept) < len(images) else None,
    )


class _Counting:
    """Counts pixels by category, where masks are whole; `counted` takes in the metrics of each complete category."""

    def __init__(self, images: ImageSet, counted: dict[str, dict[str, float]]) -> None:
        self.counted = counted
        self.to_come = Counter(sample.category for sample in images.samples)
        categories = [c for c in self.to_come if images.of(c).has_masks]
        self.counts = {c: PixelCounts(MEMORY // len(categories)) for c in categories}

    def add(self, category: str, amap: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        self.to_come[category] -= 1
        if category in self.counts:
            self.counts[category].add(amap, mask)
            if not self.to_come[category]:
                self.counted[category] = metrics_of(self.counts.pop(category))


def _positions(keep: Keep, images: ImageSet) -> NDArray[np.int64]:
    """Positions of the images whose maps are kept, rising."""
    if isinstance(keep, str) and keep in ("auto", "all", "none"):
        everything = keep == "all" or (keep == "auto" and len(images) <= fitting(images.size))
        return np.arange(len(images) if everything else 0)
    asked = np.asarray(keep)
    if asked.ndim != 1 or (asked.size and asked.dtype.kind not in "iu"):
        raise ValueError(f"keep is {keep!r}; expected auto, all, none, or a list of positions of images, like [0, 5]")
    positions = np.unique(asked).astype(np.int64)
    if len(positions) and not 0 <= positions[0] <= positions[-1] < len(images):
        raise ValueError(f"keep holds positions {positions[0]} to {positions[-1]}; expected 0 to {len(images) - 1}")
    return positions


def fitting(size: tuple[int, int]) -> int:
    """How many maps and masks of this size fit into `KEEP` bytes."""
    return KEEP // (5 * size[0] * size[1])
