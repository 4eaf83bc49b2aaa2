"""Level maps measured against what is normal at every place.

    level map e [B, 1, h, w]   ->   e / max(smoothed mean m of normal maps at that place, floor x mean of m)

Networks pad images, and print, edges and moving parts are harder to imitate than plain surface: one threshold for all
places finds those places instead of defects. If the error of a place is exponential with mean m on normal images and
c m, c > 1, on a defect, its log likelihood ratio, (1 - 1 / c) e / m - log c, rises with e / m alone: by the lemma of
Neyman and Pearson no statistic finds more defects at the same rate of false alarms. Over independent levels the ratios
add up, which is the fusion `sum`.

Means of few images are noisy: they are smoothed by a Gaussian of one feature cell, and floored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib.maps import gaussian_blur

FLOOR = 0.5
SMOOTHING = 1.0  # feature cells


class NormalMaps(nn.Module):
    """The mean map of normal images per level, as buffers `mean_0`, `mean_1`, ... [1, 1, h, w].

    Args:
        means: One map [1, 1, h, w] per level.
        floor: Lowest mean that a place may have, as a share of its level's mean over all places, in (0, 1].

    Raises:
        ValueError: If there is no level, a mean is negative, NaN, infinite or 0 everywhere, or the floor out of range.
    """

    def __init__(self, means: Sequence[Tensor], *, floor: float = FLOOR) -> None:
        super().__init__()
        if not 0 < floor <= 1:
            raise ValueError(f"floor is {floor}; expected a share of the level's mean in (0, 1], usually {FLOOR}")
        if not means:
            raise ValueError("there are no maps of normal images; expected at least one image, and one map per level")
        self.floor, self.levels = float(floor), len(means)
        for level, mean in enumerate(means):
            _check(mean, level)
            if mean.shape[:2] != (1, 1) or not mean.any():
                shape = tuple(mean.shape)
                raise ValueError(f"mean map {level} is {shape}; expected [1, 1, h, w] with values above 0")
            self.register_buffer(f"mean_{level}", mean.float())

    @classmethod
    def fit(cls, maps: Iterable[Sequence[Tensor]], *, floor: float = FLOOR) -> NormalMaps:
        """Means over all images, of level maps [B, 1, h, w] in batches."""
        sums: list[Tensor] = []
        images = 0
        for levels in maps:
            for level, amap in enumerate(levels):
                _check(amap, level)
            batch = [amap.double().sum(0, keepdim=True).cpu() for amap in levels]
            sums = [total + new for total, new in zip(sums, batch, strict=True)] if sums else batch
            images += len(levels[0])
        return cls([(total / images).float() for total in sums], floor=floor)

    def means(self) -> list[Tensor]:
        """The mean map [1, 1, h, w] of each level."""
        return [self.get_buffer(f"mean_{level}") for level in range(self.levels)]

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Level maps [B, 1, h, w], each divided by what is normal at its places; other sizes take a resized mean."""
        if len(levels) != self.levels:
            raise ValueError(f"found {len(levels)} level maps, but means of {self.levels}; use the model they are of")
        return [amap.float() / self._normal(mean, amap) for amap, mean in zip(levels, self.means(), strict=True)]

    def _normal(self, mean: Tensor, amap: Tensor) -> Tensor:
        smooth = torch.maximum(gaussian_blur(mean, SMOOTHING), self.floor * mean.mean())
        if smooth.shape[-2:] == amap.shape[-2:]:
            return smooth
        return F.interpolate(smooth, size=amap.shape[-2:], mode="bilinear", align_corners=False)


def _check(amap: Tensor, level: int) -> None:
    if not torch.isfinite(amap).all():
        raise ValueError(f"a map of level {level} has NaN or infinite values; check images and weights")
    if amap.min() < -1e-3 * amap.abs().mean():  # one minus a cosine may round to a hair below 0
        raise ValueError(
            f"a map of level {level} goes down to {amap.min():.3g}; normal maps need errors of 0 or more: use "
            "maps='plain' with this method"
        )
