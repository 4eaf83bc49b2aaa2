"""Detectors without a student, to measure distillers against: nothing is trained, normal features are remembered.

`mean` compares every position with the mean normal feature at that position, `nearest` every patch with the most
similar of a few thousand normal patches wherever they came from (the idea of PatchCore, Roth et al., CVPR 2022, without
its re-weighting). `nearest/quick` remembers random patches, `nearest/coreset` PatchCore's greedy coreset.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlib.config import DistillerConfig
from kdlib.contract import Distiller, Pairs, Phase, TrainingSet

POOL = 16
"""A coreset is chosen among so many times its size of random patches, which bounds memory and time."""
PROJECTED = 64


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(DistillerConfig):
    """Settings of both baselines.

    Attributes:
        patches: Normal patches that `nearest` remembers.
        sampling: Which patches those are: `random`, or the `greedy` coreset.
    """

    strides: tuple[int, ...] = (8, 16)
    patches: int = 4000
    sampling: Literal["random", "greedy"] = "random"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patches < 1:
            raise ValueError(f"patches is {self.patches}; expected 1 or more")


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

    def recalled(self, name: str) -> Tensor:
        """What was remembered under a buffer's name.

        Raises:
            ValueError: If no images were seen yet.
        """
        if not hasattr(self, name):
            raise ValueError(f"'{self.name}' is not trained yet: it remembers no normal features; call kd.fit first")
        return self.get_buffer(name)

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
        return [(f, self.recalled(f"mean_{i}").expand_as(f)) for i, f in enumerate(t)]


class NearestPatch(Baseline):
    """Euclidean distance from each patch to the nearest remembered normal patch."""

    name = "nearest"
    remembered = "memory"
    whitens = False

    def remember(self, batches: Iterator[Sequence[Tensor]], images: int) -> None:
        c = self.config
        if c.sampling == "random":
            self.register_buffer("memory", self._sample(batches, images, c.patches))
        else:
            pool = self._sample(batches, images, POOL * c.patches)
            self.register_buffer("memory", pool[greedy_coreset(pool, c.patches)])

    def _sample(self, batches: Iterator[Sequence[Tensor]], images: int, count: int) -> Tensor:
        """Random patches [count, C] of all images, fewer if there are not so many."""
        kept: list[Tensor] = []
        chosen, passed = torch.empty(0), 0
        for features in batches:
            patches = self._patches(features)
            if not kept:
                total = images * patches.shape[1] * patches.shape[2]
                chosen = torch.randperm(total)[:count].sort().values
            flat = patches.flatten(0, 2)
            here = chosen[(chosen >= passed) & (chosen < passed + len(flat))] - passed
            kept.append(flat[here.to(flat.device)])
            passed += len(flat)
        return torch.cat(kept)

    def level_maps(self, x: Tensor) -> list[Tensor]:
        patches = self._patches(self.teach(x))
        with torch.autocast(x.device.type, enabled=False):
            nearest = torch.cdist(patches.flatten(1, 2), self.recalled("memory")).amin(2).view(patches.shape[:3])
        return [nearest[:, None]]

    @staticmethod
    def _patches(features: Sequence[Tensor]) -> Tensor:
        """All levels at the finest one's size, smoothed over 3 x 3 positions with a border of zeros: [B, h, w, C]."""
        size = features[0].shape[-2:]
        smooth = [F.avg_pool2d(f.float(), 3, 1, 1) for f in features]
        aligned = [F.interpolate(f, size=size, mode="bilinear", align_corners=False) for f in smooth]
        return torch.cat(aligned, dim=1).permute(0, 2, 3, 1).contiguous()


def greedy_coreset(patches: Tensor, count: int) -> Tensor:
    """Positions [count] of patches that cover all of `patches` [N, C]: each is the one farthest from those before.

    Distances are measured after a random projection to at most 64 dimensions, as in PatchCore, whose official code
    does so too; the first patch is drawn at random.
    """
    flat = patches.float()
    if flat.shape[1] > PROJECTED:
        flat = flat @ (torch.randn(flat.shape[1], PROJECTED) / PROJECTED**0.5).to(flat.device)
    squares = flat.square().sum(1)
    chosen = [int(torch.randint(len(flat), ()))]
    nearest = torch.full_like(squares, torch.inf)
    for _ in range(min(count, len(flat)) - 1):
        latest = flat[chosen[-1]]
        nearest = torch.minimum(nearest, squares + latest.square().sum() - 2 * (flat @ latest))
        chosen.append(int(nearest.argmax()))
    return torch.tensor(chosen, device=patches.device)


_QUICK = BaselineConfig()
PRESETS = {"quick": _QUICK, "coreset": replace(_QUICK, sampling="greedy")}
