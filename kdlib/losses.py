"""Distances between a teacher's and a student's feature maps.

Three facts to keep in mind (taught in notebooks 01 and 02). For unit vectors half the squared L2 distance *is* one
minus the cosine. Reductions differ by large constants between public codes, which plain SGD feels and Adam hardly does.
A cosine over the whole flattened map and a mean of cosines per position are different losses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

_EPS = 1e-8


def cosine_distance(t: Tensor, s: Tensor) -> Tensor:
    """One minus the cosine over channels at every position.

    Args:
        t: Teacher features [B, C, h, w].
        s: Student features [B, C, h, w].

    Returns:
        Distances [B, h, w] in float32, in 0..2 (0..1 where both are non-negative); 1 where a vector is zero.
    """
    dot, t_norm, s_norm = _products(t, s, (1,))
    return 1 - dot / (t_norm * s_norm)


def normalised_l2(t: Tensor, s: Tensor) -> Tensor:
    """Squared L2 distance of channel-normalised features at every position, [B, h, w], in 0..4.

    Equals `2 * cosine_distance` except at dead positions: it is 1 where one vector is zero, 0 where both are. Source:
    STPM, official code.
    """
    dot, t_norm, s_norm = _products(t, s, (1,))
    alive = (t_norm > _EPS).float() + (s_norm > _EPS).float()
    return (alive - 2 * dot / (t_norm * s_norm)).clamp_min(0)


def residual(t: Tensor, s: Tensor) -> Tensor:
    """Teacher minus student features as unit vectors, [B, C, h, w]; half its squared length is `cosine_distance`."""
    return F.normalize(t.float(), dim=1) - F.normalize(s.float(), dim=1)


def per_position_cosine(t: Tensor, s: Tensor) -> Tensor:
    """Mean over images and positions of `cosine_distance`, a scalar. Source: RD, the paper's equations 1-2."""
    return cosine_distance(t, s).mean()


def focused(t: Tensor, s: Tensor, easy: float, factor: float = 0.1) -> Tensor:
    """Hard mining: the same student features, of which the well restored positions get smaller gradients.

    Args:
        t: Teacher features [B, C, h, w].
        s: Student features [B, C, h, w].
        easy: Share of the batch's positions, those of the smallest `cosine_distance`, that count as well restored.
        factor: What their gradients are multiplied by.

    Source: Guo et al., Dinomaly, CVPR 2025, who take it over from ReContrast (NeurIPS 2023).
    """
    if easy <= 0:
        return s
    with torch.no_grad():
        distance = cosine_distance(t, s)
        count = round(easy * distance.numel())
        limit = distance.flatten().kthvalue(max(count, 1)).values
        share = torch.where(distance <= limit, factor, 1.0)[:, None].to(s.dtype)
    return s.detach() + share * (s - s.detach())


def hard_features(t: Tensor, s: Tensor, hard: float = 0.999, *, over: Literal["image", "batch"] = "image") -> Tensor:
    """Mean of the largest squared differences of features [B, C, h, w], a scalar.

    Args:
        t: Teacher features.
        s: Student features.
        hard: Quantile of the differences from which on they count; 0 takes the mean of all.
        over: Whether every `image` has its quantile, or the whole `batch`, whose loss then depends on its company.

    Source: Batzner et al., EfficientAD, WACV 2024, equation 1; batches have one image there.
    """
    squared = (t.float() - s.float()).square().flatten(1)
    squared = squared.reshape(1, -1) if over == "batch" else squared
    n = squared.shape[1]
    count = n - ceil(round(hard * (n - 1), 6))
    return (squared if count == n else squared.topk(count, dim=1, sorted=False).values).mean()


def global_cosine(t: Tensor, s: Tensor) -> Tensor:
    """One minus the cosine of whole maps taken as one vector per image, mean over images. Source: RD4AD's code."""
    dot, t_norm, s_norm = _products(t, s, tuple(range(1, t.dim())))
    return (1 - dot / (t_norm * s_norm)).mean()


def hardest_cosine(t: Tensor, s: Tensor, count: int = 10) -> Tensor:
    """Mean `cosine_distance` of the worst restored positions of every image, mean over images, a scalar.

    Args:
        t: Teacher features [B, C, h, w].
        s: Student features [B, C, h, w].
        count: How many positions of an image count, whatever their number.

    Source: the hard part of AAND's second stage; its code adds `global_cosine`.
    """
    distance = cosine_distance(t, s).flatten(1)
    return distance.topk(min(count, distance.shape[1]), dim=1).values.mean()


def _products(t: Tensor, s: Tensor, dim: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Dot product over `dim`, and both norms, no smaller than 1e-8: the three passes that a cosine needs."""
    t, s = t.float(), s.float()
    norms = (torch.linalg.vector_norm(f, dim=dim).clamp_min(_EPS) for f in (t, s))
    return (t * s).sum(dim), *norms


def channel_kl(
    t: Tensor, s: Tensor, *, temperature: float = 1.0, reduction: Literal["cwd", "vandgnl"] = "cwd"
) -> Tensor:
    """Divergence KL(teacher || student) of where in the image each channel is active, a scalar.

    Every channel becomes a distribution over positions by a softmax; a constant added to a channel changes nothing.

    Args:
        t: Teacher features [B, C, h, w].
        s: Student features [B, C, h, w].
        temperature: Divides the features; small values look at peaks.
        reduction: `cwd` sums over positions, `vandgnl` takes the mean, h * w times less; both average over images
            and channels.

    Source: channel-wise distillation; the second reduction is that of VAND-GNL's code.
    """
    p, q = (F.log_softmax(f.float().flatten(2) / temperature, dim=2) for f in (t, s))
    divergence = (p.exp() * (p - q)).sum(2).mean()
    return divergence if reduction == "cwd" else divergence / p.shape[2]


def intra_affinity(t: Tensor, s: Tensor, grid: int = 16) -> Tensor:
    """Mean squared difference of the cosines between all positions of one image, a scalar.

    Features [B, C, h, w] are first averaged onto at most `grid` x `grid` positions.
    """
    return _affinity(t, s, grid, 0)


def inter_affinity(t: Tensor, s: Tensor, grid: int = 16) -> Tensor:
    """As `intra_affinity`, between positions of two images: each of the batch and the one before it.

    A batch of one image has no neighbour and gives 0.
    """
    if len(t) == 1:
        return 0 * s.float().sum()
    return _affinity(t, s, grid, 1)


def _affinity(t: Tensor, s: Tensor, grid: int, shift: int) -> Tensor:
    """Mean squared difference of cosines between every image's positions and those of the image `shift` before it."""
    with torch.autocast(t.device.type, enabled=False):
        a, b = (_directions(f, grid) for f in (t, s))
        positions = a.shape[2]
        if a.shape[1] > positions:
            return (a.mT @ a.roll(shift, 0) - b.mT @ b.roll(shift, 0)).square().mean()
        # As <x'y, u'v> = <x u', y v'>, products over channels, here the smaller matrices, give the same squared norm.
        tt, ss, ts = ((p * p.roll(shift, 0)).sum() for p in (a @ a.mT, b @ b.mT, a @ b.mT))
        return (tt + ss - 2 * ts) / (len(t) * positions**2)


def _directions(features: Tensor, grid: int) -> Tensor:
    """Unit vectors [B, C, n] of features [B, C, h, w] averaged onto a grid."""
    h, w = features.shape[-2:]
    features = features.float()
    if max(h, w) > grid:
        features = F.adaptive_avg_pool2d(features, (min(h, grid), min(w, grid)))
    return F.normalize(features.flatten(2), dim=1)


def over_levels(
    pairs: Sequence[tuple[Tensor, Tensor]], distance: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    """Applies a scalar distance to every level and sums: `{"total", "level_0", ...}`."""
    levels = {f"level_{i}": distance(t, s) for i, (t, s) in enumerate(pairs)}
    return {"total": sum(levels.values()), **levels}  # type: ignore[dict-item]
