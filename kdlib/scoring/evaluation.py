"""Maps, scores and metrics of a model on labelled images. The test set is touched here, and nowhere else."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from kdlib.data.records import ImageSet, Sample
from kdlib.runtime import Runtime, runtime, synchronise
from kdlib.scoring import metrics

METRICS = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "aupro")


class Mapper(Protocol):
    """Whatever turns images into anomaly maps: a method, a baseline."""

    def anomaly_map(self, x: Tensor) -> Tensor: ...

    def image_score(self, amap: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a model says about a set of images, and what is true.

    Attributes:
        maps: Anomaly maps [N, H, W], float32, at the set's working size.
        scores: Image scores [N], float32, higher is more anomalous.
        masks: Ground truth [N, H, W], bool.
        labels: 0 normal, 1 anomalous [N].
        samples: Where each image comes from [N].
        has_masks: Whether every anomalous image has a mask.
        seconds: Time spent in the network, without reading files.
    """

    maps: NDArray[np.float32]
    scores: NDArray[np.float32]
    masks: NDArray[np.bool_]
    labels: NDArray[np.int64]
    samples: tuple[Sample, ...]
    has_masks: bool
    seconds: float

    @property
    def defects(self) -> NDArray[np.str_]:
        """Kind of defect of every image [N], `normal` where there is none."""
        return np.array([s.defect for s in self.samples])

    def metrics(self) -> dict[str, float]:
        """All metrics of one category; those that the labels or masks cannot give are NaN.

        Image metrics need normal and anomalous images, pixel metrics a mask for every anomalous image.
        """
        found = dict.fromkeys(METRICS, float("nan"))
        if 0 < self.labels.sum() < len(self.labels):
            found |= metrics.image_metrics(self.scores, self.labels)
        if self.has_masks:
            found |= metrics.pixel_metrics(self.maps, self.masks)
        return found

    def of_defect(self, defect: str) -> Result:
        """The normal images and those with one kind of defect.

        Raises:
            ValueError: If no image has that defect.
        """
        if defect not in self.defects:
            raise ValueError(f"no image has the defect '{defect}'; there are {sorted(set(self.defects.tolist()))}")
        return self.subset(np.flatnonzero((self.labels == 0) | (self.defects == defect)))

    def subset(self, index: NDArray[np.int64]) -> Result:
        """The images at these positions."""
        return Result(
            maps=self.maps[index],
            scores=self.scores[index],
            masks=self.masks[index],
            labels=self.labels[index],
            samples=tuple(self.samples[i] for i in index),
            has_masks=self.has_masks and bool(self.labels[index].any()),
            seconds=self.seconds * len(index) / len(self.labels),
        )


def evaluate(
    model: Mapper,
    images: ImageSet,
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 16,
    workers: int = 0,
) -> Result:
    """Scores every image of a set.

    Args:
        model: A trained distiller or a baseline.
        images: Normal and anomalous images of one category.
        device: See `kdlib.runtime.runtime`.
        precision: See `kdlib.runtime.runtime`; maps and scores come out in float32 whatever it is.
        batch_size: Images at a time; the result does not depend on it.
        workers: Processes that read images.

    Raises:
        ValueError: If there are no images.
    """
    if not len(images):
        raise ValueError("there are no images to evaluate; expected at least one")
    how = runtime(device, precision)
    if isinstance(model, torch.nn.Module):
        how.prepare(model.eval())
    maps, scores, masks, seconds = [], [], [], 0.0
    for items in DataLoader(images, batch_size, num_workers=workers):
        start = time.perf_counter()
        amap, score = predict(model, items["image"], how)
        seconds += time.perf_counter() - start
        maps.append(amap.numpy())
        scores.append(score.numpy())
        masks.append(items["mask"][:, 0].numpy())
    return Result(
        maps=np.concatenate(maps),
        scores=np.concatenate(scores),
        masks=np.concatenate(masks),
        labels=images.labels,
        samples=images.samples,
        has_masks=images.has_masks,
        seconds=seconds,
    )


def predict(model: Mapper, x: Tensor, how: Runtime) -> tuple[Tensor, Tensor]:
    """Maps [B, H, W] and scores [B] of images `x` [B, 3, H, W], float32 on the CPU."""
    with torch.inference_mode():
        with how.autocast():
            amap = model.anomaly_map(how.images(x)).float()
        score = model.image_score(amap)
        synchronise(how.device)
    return amap[:, 0].cpu(), score.float().cpu()
