"""Level maps measured against what is normal at every place.

    level map e [B, 1, h, w]   ->   e / (M^(1 - strength) m^strength)

    m   mean of normal maps at that place, smoothed, and no lower than floor times the mean over all places
    M   mean over all places, or over the ring of the place

Networks pad images, and print, edges and moving parts are harder to imitate than plain surface: one threshold for all
places finds those places instead of defects. If the error of a place is exponential with mean m on normal images and
c m, c > 1, on a defect, its log likelihood ratio is

    log [exp(-e / (c m)) / (c m)] - log [exp(-e / m) / m]  =  (1 - 1 / c) e / m - log c

and rises with e / m alone: if c is the same at all places, by the lemma of Neyman and Pearson no statistic of a place
and its e finds more defects at the same rate of false alarms over all of them. Over independent levels with one c the
quotients add up, which is the fusion `sum`; their `product`, the default, asks that all levels agree, and was better on
tuning images. Whitened maps, sums over many channels, vary less than an exponential: the order within a level stays.

Means of few images are noisy: they are smoothed by a Gaussian of one feature cell and floored, and a `strength` below 1
draws their logarithm towards the level's. Of parts that lie anywhere, a place has no usual error of its own, but the
rim has: `by="rim"` draws towards the mean of a place's ring instead, which is the outermost, the next, or all others. A
level whose maps go below 0, as a likelihood's do, is counted from its lowest normal value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib.config import Fusion
from kdlib.maps import gaussian_blur
from kdlib.runtime import exact

FLOOR = 0.75
FUSION: Fusion = "product"
STRENGTH = 1.0
SMOOTHING = 1.0  # feature cells
RINGS = 2
By = Literal["place", "rim"]


class Tally:
    """Sum and lowest value of each level's maps over normal images; tallies of parts of a set add up to the set's."""

    def __init__(self) -> None:
        self.images = 0
        self.sums: list[Tensor] = []
        self.lowest: list[float] = []

    @classmethod
    def of(cls, maps: Iterable[Sequence[Tensor]]) -> Tally:
        """Over all images, of level maps [B, 1, h, w] in batches.

        Raises:
            ValueError: If a map has NaN or infinite values.
        """
        tally = cls()
        for levels in maps:
            for level, amap in enumerate(levels):
                if not torch.isfinite(amap).all():
                    raise ValueError(f"a map of level {level} has NaN or infinite values; check images and weights")
            part = cls()
            part.images = len(levels[0])
            part.sums = [exact(amap).sum(0, keepdim=True).cpu() for amap in levels]
            part.lowest = [float(amap.min()) for amap in levels]
            tally += part
        return tally

    def __add__(self, other: Tally) -> Tally:
        if not self.images or not other.images:
            return self if self.images else other
        total = Tally()
        total.images = self.images + other.images
        total.sums = [a + b for a, b in zip(self.sums, other.sums, strict=True)]
        total.lowest = [min(a, b) for a, b in zip(self.lowest, other.lowest, strict=True)]
        return total


class NormalMaps(nn.Module):
    """What is normal: of every level the mean map, a buffer `mean_0`, `mean_1`, ... [1, 1, h, w].

    Args:
        means: One map [1, 1, h, w] per level, of values above `bases`.
        bases: The value of each level from which errors count; 0 where maps are never negative.
        floor: Lowest mean that a place may have, as a share of its level's mean over all places, in (0, 1].
        fusion: How measured levels are fused.
        strength: Share of the correction, in [0, 1]; 1 divides by the mean of the place.
        by: What the rest of the correction is by: nothing (`place`), or the mean of the place's ring (`rim`).

    Raises:
        ValueError: If there is no level, a mean is negative, NaN, infinite or 0 everywhere, or the floor out of range.
    """

    def __init__(
        self,
        means: Sequence[Tensor],
        bases: Sequence[float] | None = None,
        *,
        floor: float = FLOOR,
        fusion: Fusion = FUSION,
        strength: float = STRENGTH,
        by: By = "place",
    ) -> None:
        super().__init__()
        if not (0 < floor <= 1 and 0 <= strength <= 1):
            raise ValueError(f"floor is {floor}, strength {strength}; expected shares of at most 1, the floor above 0")
        for name, value, choices in (("fusion", fusion, get_args(Fusion)), ("by", by, get_args(By))):
            if value not in choices:
                raise ValueError(f"{name} is '{value}'; expected one of {', '.join(choices)}")
        if not means:
            raise ValueError("there are no maps of normal images; expected at least one image, and one map per level")
        self.floor, self.fusion, self.strength, self.by = float(floor), fusion, float(strength), by
        self.levels = len(means)
        self.bases = tuple(bases or [0.0] * len(means))
        for level, mean in enumerate(means):
            if mean.shape[:2] != (1, 1) or not torch.isfinite(mean).all() or mean.min() < 0 or not mean.any():
                raise ValueError(
                    f"mean map {level} is {tuple(mean.shape)} and {mean.min():.3g} to {mean.max():.3g}; expected "
                    "[1, 1, h, w] with finite values of 0 or more, not all 0"
                )
            self.register_buffer(f"mean_{level}", mean.float())

    @classmethod
    def fit(cls, tally: Tally, **settings: Any) -> NormalMaps:
        """Means over the images of a tally; settings as of the class."""
        means = [(total / tally.images).float() for total in tally.sums]
        # One minus a cosine may round to a hair below 0, and no base is meant.
        slack = [1e-3 * float(mean.abs().mean()) for mean in means]
        bases = [low if low < -allowed else 0.0 for low, allowed in zip(tally.lowest, slack, strict=True)]
        above = [(mean - base).clamp_min(0) for mean, base in zip(means, bases, strict=True)]
        return cls(above, bases, **settings)

    def settings(self) -> dict[str, Any]:
        """How the means are used, as plain values."""
        return {"floor": self.floor, "fusion": self.fusion, "strength": self.strength, "by": self.by}

    def means(self) -> list[Tensor]:
        """The mean map [1, 1, h, w] of each level."""
        return [self.get_buffer(f"mean_{level}") for level in range(self.levels)]

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Level maps [B, 1, h, w], each divided by what is normal at its places; other sizes take a resized mean."""
        if len(levels) != self.levels:
            raise ValueError(f"found {len(levels)} level maps, but means of {self.levels}; use the model they are of")
        errors = [(amap.float() - base).clamp_min(0) for amap, base in zip(levels, self.bases, strict=True)]
        return [error / self._normal(mean, error) for error, mean in zip(errors, self.means(), strict=True)]

    def _normal(self, mean: Tensor, amap: Tensor) -> Tensor:
        level = mean.mean()
        place = torch.maximum(gaussian_blur(mean, SMOOTHING), self.floor * level)
        whole = torch.maximum(rings(mean), self.floor * level) if self.by == "rim" else level
        smooth = whole ** (1 - self.strength) * place**self.strength
        if smooth.shape[-2:] == amap.shape[-2:]:
            return smooth
        return F.interpolate(smooth, size=amap.shape[-2:], mode="bilinear", align_corners=False)


def rings(mean: Tensor) -> Tensor:
    """A map [1, 1, h, w] whose places hold the mean of their ring: the outermost, the next, and all others."""
    down, across = (torch.arange(n, device=mean.device) for n in mean.shape[-2:])
    from_top, from_left = torch.minimum(down, down.flip(0)), torch.minimum(across, across.flip(0))
    ring = torch.minimum(from_top[:, None], from_left[None]).clamp_max(RINGS)
    members = F.one_hot(ring.flatten(), RINGS + 1).to(mean.dtype)  # [h w, rings]
    sums, counts = mean.flatten() @ members, members.sum(0).clamp_min(1)
    return (sums / counts)[ring].view_as(mean)
