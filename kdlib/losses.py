"""Distances between a teacher's and a student's feature maps.

Three facts to keep in mind (taught in notebooks 01 and 02). For unit vectors half the squared L2 distance *is* one
minus the cosine. Reductions differ by large constants between public codes, which plain SGD feels and Adam hardly does.
A cosine over the whole flattened map and a mean of cosines per position are different losses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kdlib.types import Pairs

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

    Equals ``2 * cosine_distance`` except at dead positions: it is 1 where one vector is zero, 0 where both are. Source:
    STPM, official code.
    """
    dot, t_norm, s_norm = _products(t, s, (1,))
    alive = (t_norm > _EPS).float() + (s_norm > _EPS).float()
    return (alive - 2 * dot / (t_norm * s_norm)).clamp_min(0)


def per_position_cosine(t: Tensor, s: Tensor) -> Tensor:
    """Mean over images and positions of :func:`cosine_distance`, a scalar. Source: RD, the paper's equations 1-2."""
    return cosine_distance(t, s).mean()


def global_cosine(t: Tensor, s: Tensor) -> Tensor:
    """One minus the cosine of whole maps taken as one vector per image, mean over images. Source: RD4AD's code."""
    dot, t_norm, s_norm = _products(t, s, tuple(range(1, t.dim())))
    return (1 - dot / (t_norm * s_norm)).mean()


def _products(t: Tensor, s: Tensor, dim: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Dot product over ``dim``, and both norms, no smaller than 1e-8: the three passes that a cosine needs."""
    t, s = t.float(), s.float()
    norms = (torch.linalg.vector_norm(f, dim=dim).clamp_min(_EPS) for f in (t, s))
    return (t * s).sum(dim), *norms


def over_levels(pairs: Pairs, distance: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
    """Applies a scalar distance to every level and sums: ``{"total", "level_0", ...}``."""
    levels = {f"level_{i}": distance(t, s) for i, (t, s) in enumerate(pairs)}
    return {"total": sum(levels.values()), **levels}  # type: ignore[dict-item]
