"""Detectors without a student, to measure distillers against: nothing is trained, normal features are remembered.

`mean` compares every position with the mean normal feature at that position, `nearest` every patch with the most
similar of a few thousand normal patches wherever they came from (the idea of PatchCore, Roth et al., CVPR 2022, with
random instead of greedy sampling and without its re-weighting).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlib.config import DistillerConfig
from kdlib.contract import Distiller, Pairs, Phase, TrainingSet


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(DistillerConfig):
    """Settings of both baselines.

    Attributes:
        patches: Normal patches that `nearest` remembers.
    """

    strides: tuple[int, ...] = (8, 16)
    patches: int = 4000


class Baseline(Distiller):
    """Remembers the teacher's features in one pass; `fit` finds no phase to train.

    Attributes:
        remembered: How the names of the buffers that hold those features begin.
    """

    config: BaselineConfig
    remembered: ClassVar[str]

    def __init__(self, config: BaselineConfig | None = None) -> None:
        super().__init__(config or BaselineConfig())

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Makes room for what was remembered, whose shapes only the training images decide."""
        for name, tensor in state_dict.items():
            if name.startswith(self.remembered):
                self.register_buffer(name, torch.empty_like(tensor))
        return super().load_state_dict(state_dict, strict, assign)

    def phases(self, images: TrainingSet) -> Iterator[Phase]:
        self.remember((self.teach(batch.image, batch.teacher) for batch in images), len(images))
        yield from ()

    def remember(self, batches: Iterator[Sequence[Tensor]], images: int) -> None:
        """Keeps what is needed of the normal features of so many images, [B, C, h, w] per level and batch."""
        raise NotImplementedError


class MeanFeature(Baseline):
    """One minus the cosine between a feature and the mean normal feature at the same position."""

    name = "mean"
    remembered = "mean_"

    def remember(self, batches: Iterator[Sequence[Tensor]], images: int) -> None:
        sums: list[Tensor] = []
        for features in batches:
            new = [f.float().sum(0, keepdim=True) for f in features]
            sums = [a + b for a, b in zip(sums, new, strict=True)] if sums else new
        for i, total in enumerate(sums):
            self.register_buffer(f"mean_{i}", total / images)

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        t = self.teach(x, teacher)
        return [(f, self.get_buffer(f"mean_{i}").expand_as(f)) for i, f in enumerate(t)]


class NearestPatch(Baseline):
    """Euclidean distance from each patch to the nearest remembered normal patch."""

    name = "nearest"
    remembered = "memory"

    def remember(self, batches: Iterator[Sequence[Tensor]], images: int) -> None:
        kept: list[Tensor] = []
        chosen, passed = torch.empty(0), 0
        for features in batches:
            patches = self._patches(features)
            if not kept:
                total = images * patches.shape[1] * patches.shape[2]
                chosen = torch.randperm(total)[: self.config.patches].sort().values
            flat = patches.flatten(0, 2)
            here = chosen[(chosen >= passed) & (chosen < passed + len(flat))] - passed
            kept.append(flat[here.to(flat.device)])
            passed += len(flat)
        self.register_buffer("memory", torch.cat(kept))

    def level_maps(self, x: Tensor) -> list[Tensor]:
        patches = self._patches(self.teach(x))
        with torch.autocast(x.device.type, enabled=False):
            nearest = torch.cdist(patches.flatten(1, 2), self.get_buffer("memory")).amin(2).view(patches.shape[:3])
        return [nearest[:, None]]

    @staticmethod
    def _patches(features: Sequence[Tensor]) -> Tensor:
        """All levels at the finest one's size, smoothed over 3 x 3 positions with a border of zeros: [B, h, w, C]."""
        size = features[0].shape[-2:]
        smooth = [F.avg_pool2d(f.float(), 3, 1, 1) for f in features]
        aligned = [F.interpolate(f, size=size, mode="bilinear", align_corners=False) for f in smooth]
        return torch.cat(aligned, dim=1).permute(0, 2, 3, 1).contiguous()


PRESETS = {"quick": BaselineConfig()}
