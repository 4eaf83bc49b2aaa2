"""Instance normalisation, fast on CPUs and without surprises."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_EPS = 1e-5


class InstanceNorm(nn.Module):
    """Every channel of every image gets mean 0 and variance 1; no parameters, no running statistics.

    A layer norm over positions: on CPUs faster than PyTorch's instance norm, and a single position, which has no
    variance, becomes 0 instead of an error. The memory layout stays: pooling is slower in the other.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] of features [B, C, h, w]."""
        rows = x.is_contiguous(memory_format=torch.channels_last)
        normal = F.layer_norm(x.flatten(2), (x.shape[2] * x.shape[3],), eps=_EPS).view(x.shape)
        return normal.contiguous(memory_format=torch.channels_last if rows else torch.contiguous_format)
