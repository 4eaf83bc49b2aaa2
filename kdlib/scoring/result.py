"""What a model says about a set of labelled images, and the metrics of that."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdlib.data.records import Sample
from kdlib.scoring import metrics
from kdlib.scoring.pixel_counts import PixelCounts

METRICS = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "aupro")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a model says about a set of images, and what is true.

    Attributes:
        scores: Image scores [N], float32, higher is more anomalous.
        samples: Where each image comes from [N].
        defect_pixels: Number of pixels in each image's mask [N].
        seconds: Time spent in the network, without reading files.
        kept: Positions of the images whose maps are there [K], rising.
        kept_maps: Their anomaly maps [K, H, W], float32, at the set's working size.
        kept_masks: Their ground truth [K, H, W], bool.
        counted: Pixel metrics by category, where maps were counted and not kept.
    """

    scores: NDArray[np.float32]
    samples: tuple[Sample, ...]
    defect_pixels: NDArray[np.int64]
    seconds: float
    kept: NDArray[np.int64]
    kept_maps: NDArray[np.float32]
    kept_masks: NDArray[np.bool_]
    counted: dict[str, dict[str, float]] | None = None

    @property
    def maps(self) -> NDArray[np.float32]:
        """Anomaly maps [N, H, W], float32, at the set's working size.

        Raises:
            ValueError: If not all of them were kept; `map_of` gives those that were.
        """
        self._need_all()
        return self.kept_maps

    @property
    def masks(self) -> NDArray[np.bool_]:
        """Ground truth [N, H, W].

        Raises:
            ValueError: If not all masks were kept; `mask_of` gives those that were.
        """
        self._need_all()
        return self.kept_masks

    def map_of(self, image: int) -> NDArray[np.float32]:
        """The anomaly map [H, W] of one image that was kept."""
        return self.kept_maps[self._row(image)]

    def mask_of(self, image: int) -> NDArray[np.bool_]:
        """The ground truth [H, W] of one image that was kept."""
        return self.kept_masks[self._row(image)]

    @property
    def complete(self) -> bool:
        """Whether the maps of all images are there."""
        return len(self.kept) == len(self.samples)

    @property
    def labels(self) -> NDArray[np.int64]:
        """0 normal, 1 anomalous [N]."""
        return np.array([s.label for s in self.samples], dtype=np.int64)

    @property
    def defects(self) -> NDArray[np.str_]:
        """Kind of defect of every image [N], `normal` where there is none."""
        return np.array([s.defect for s in self.samples])

    @property
    def categories(self) -> tuple[str, ...]:
        """The products that the images show, in order of appearance."""
        return tuple(dict.fromkeys(s.category for s in self.samples))

    def metrics(self) -> dict[str, float]:
        """All metrics of one category; those that the labels or masks cannot give are NaN.

        Image metrics need normal and anomalous images, pixel metrics a mask with a defect for every anomalous image.

        Raises:
            ValueError: If there are several categories, or pixel metrics need maps that were not kept.
        """
        if len(self.categories) > 1:
            raise ValueError(
                f"the result has {len(self.categories)} categories {list(self.categories)}, whose scores do not mix: "
                "take per_category(), and the mean of it"
            )
        return self.per_category()[self.categories[0]]

    def per_category(self) -> dict[str, dict[str, float]]:
        """`metrics` of each category alone.

        Raises:
            ValueError: If pixel metrics need maps that were not kept.
        """
        return {category: self._metrics(category) for category in self.categories}

    def of_defect(self, defect: str) -> Result:
        """The normal images and those with one kind of defect.

        Raises:
            ValueError: If no image has that defect.
        """
        if defect not in self.defects:
            raise ValueError(f"no image has the defect '{defect}'; there are {sorted(set(self.defects.tolist()))}")
        return self.subset(np.flatnonzero((self.labels == 0) | (self.defects == defect)))

    def subset(self, index: NDArray[np.int64]) -> Result:
        """The images at these positions; metrics of its pixels need their maps."""
        index = np.asarray(index)
        there = np.isin(index, self.kept)
        rows = np.searchsorted(self.kept, index[there])
        return Result(
            scores=self.scores[index],
            samples=tuple(self.samples[i] for i in index),
            defect_pixels=self.defect_pixels[index],
            seconds=self.seconds * len(index) / len(self.samples),
            kept=np.flatnonzero(there),
            kept_maps=self.kept_maps[rows],
            kept_masks=self.kept_masks[rows],
        )

    def _metrics(self, category: str) -> dict[str, float]:
        index = np.flatnonzero([s.category == category for s in self.samples])
        labels = self.labels[index]
        found = dict.fromkeys(METRICS, float("nan"))
        if 0 < labels.sum() < len(labels):
            found |= metrics.image_metrics(self.scores[index], labels)
        if not self._masks_are_whole(category, index):
            return found
        if self.counted is not None:
            return found | self.counted.get(category, {})
        if not np.isin(index, self.kept).all():
            raise ValueError("pixel metrics of a part of the images need its maps; evaluate it alone or keep='all'")
        rows = np.searchsorted(self.kept, index)
        counts = metrics.count([self.kept_maps[i] for i in rows], [self.kept_masks[i] for i in rows])
        return found | metrics_of(counts)

    def _masks_are_whole(self, category: str, index: NDArray[np.int64]) -> bool:
        anomalous = index[self.labels[index] == 1]
        if not len(anomalous) or any(self.samples[i].mask_path is None for i in anomalous):
            return False
        empty = [self.samples[i] for i in anomalous if not self.defect_pixels[i]]
        if empty:
            warnings.warn(
                f"{len(empty)} anomalous images of '{category}' have a mask without a defect, first "
                f"'{empty[0].path}': its pixel metrics are NaN; mend or remove these masks",
                stacklevel=2,
            )
        return not empty

    def _need_all(self) -> None:
        if not self.complete:
            raise ValueError(
                f"the maps of {len(self.kept)} of {len(self.samples)} images were kept; evaluate(..., keep='all') "
                "keeps all in memory, keep=[0, 5] those of some images, for map_of(0) and mask_of(0)"
            )

    def _row(self, image: int) -> int:
        image = range(len(self.samples))[image]
        rows = np.flatnonzero(self.kept == image)
        if not len(rows):
            raise ValueError(
                f"the map of image {image} was not kept, {len(self.kept)} others were; evaluate(..., keep=[{image}])"
            )
        return int(rows[0])


def metrics_of(counts: PixelCounts) -> dict[str, float]:
    """Pixel metrics of counted pixels; none where there are no defective or no defect-free pixels."""
    return metrics.counts_metrics(counts) if counts.good and counts.defect else {}


def examples(samples: Sequence[Sample], count: int) -> list[int]:
    """Positions of one normal image and then of defects, every kind in turn."""
    by_kind: dict[str, list[int]] = {}
    for i, sample in enumerate(samples):
        if sample.defect != "normal":
            by_kind.setdefault(sample.defect, []).append(i)
    chosen = [i for i, sample in enumerate(samples) if not sample.label][:1]
    while len(chosen) < min(count, len(samples)) and any(by_kind.values()):
        for members in by_kind.values():
            if members and len(chosen) < count:
                chosen.append(members.pop(0))
    return chosen
