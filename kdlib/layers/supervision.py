"""Losses against the mask of a synthetic defect, on features of one level. Source: AAND's code, stage I."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_CLAMP = 1e-6
_COVERED = 0.3  # share of a position that a mask covers where the position counts as in it


def covered(mask: Tensor, like: Tensor) -> Tensor:
    """A mask [B, 1, H, W] at the size of features [B, C, h, w]: where it covers more than 0.3, bool [B, 1, h, w]."""
    h, w = like.shape[-2:]
    return F.adaptive_avg_pool2d(mask.float(), (h, w)) > _COVERED


def focal(gate: Tensor, mask: Tensor) -> Tensor:
    """Mean focal loss of gates [B, 1, h, w] in 0..1 against masks; what is answered well already counts little.

    `-0.8 (1 - w)^2 log w` in a defect, else `-0.2 w^2 log(1 - w)`. Source: Lin et al., ICCV 2017, with AAND's numbers.
    """
    w = gate.clamp(_CLAMP, 1 - _CLAMP)
    inside, outside = -0.8 * (1 - w) ** 2 * w.log(), -0.2 * w**2 * (1 - w).log()
    return torch.where(mask, inside, outside).mean()


def push(f: Tensor, t: Tensor, normal: Tensor, abnormal: Tensor, margin: float, limits: tuple[int, int]) -> Tensor:
    """Mean over pairs of a normal position i and an abnormal one j of `max(0, cos(f_i, t_j) - cos(f_i, f_j) + margin)`.

    Args:
        f: Vanilla features [B, C, h, w].
        t: Amplified features [B, C, h, w].
        normal: Positions that are normal and on the product, bool [B, 1, h, w].
        abnormal: Positions of defects, bool [B, 1, h, w].
        margin: By how much the cosine shall fall.
        limits: At most so many normal and abnormal positions, drawn from torch's generator.

    Returns:
        A scalar; 0 where there are no such pairs.
    """
    with torch.autocast(f.device.type, enabled=False):
        plain, louder = (F.normalize(each.float(), dim=1).permute(0, 2, 3, 1).flatten(0, 2) for each in (f, t))
        (i, has_i), (j, has_j) = (drawn(mask.flatten(), n) for mask, n in zip((normal, abnormal), limits, strict=True))
        before, after = plain[i] @ plain[j].mT, plain[i] @ louder[j].mT
        return weighted_mean(F.relu(after - before + margin), has_i[:, None] & has_j[None])


def drawn(mask: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """Indices [n] of random positions where a mask [N] is set, `limit` at most, and which of them are really in it.

    Their number does not depend on the mask, so that no device has to wait for it.
    """
    chances = torch.rand(mask.shape, device=mask.device) + mask
    index = chances.topk(min(limit, len(mask))).indices
    return index, mask[index]


def weighted_mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of the chosen values, 0 where none is."""
    return (values * chosen).sum() / chosen.sum().clamp_min(1)
