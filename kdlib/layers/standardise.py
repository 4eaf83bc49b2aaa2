"""Mean and standard deviation per channel of normal images, so that channels and levels have one scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from kdlib.runtime import exact


class Standardise(nn.Module):
    """Subtracts every channel's mean and divides by its standard deviation, level by level; fresh, it changes nothing.

    Args:
        channels: Channels of the levels.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.levels = len(channels)
        for level, n in enumerate(channels):
            self.register_buffer(f"mean_{level}", torch.zeros(1, n, 1, 1))
            self.register_buffer(f"std_{level}", torch.ones(1, n, 1, 1))

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Standardised levels [B, C, h, w] in float32."""
        return [(f.float() - self.get_buffer(f"mean_{i}")) / self.get_buffer(f"std_{i}") for i, f in enumerate(levels)]

    @torch.no_grad()
    def fit(self, batches: Iterable[Sequence[Tensor]]) -> None:
        """Takes mean and deviation from batches of levels [B, C, h, w], over images and positions.

        A channel's deviation is at least a hundredth of its level's mean: one that is silent on normal images must not
        drown the others when it speaks.
        """
        sums: list[Tensor] = []
        for levels in batches:
            new = [_sums(f) for f in levels]
            sums = [a + b for a, b in zip(sums, new, strict=True)] if sums else new
        for i, (count, first, second) in enumerate(sums):
            mean = first / count
            std = (second / count - mean**2).clamp_min(0).sqrt()
            self.get_buffer(f"mean_{i}").copy_(mean)
            self.get_buffer(f"std_{i}").copy_(std.clamp_min(0.01 * float(std.mean()) + 1e-6))


def _sums(f: Tensor) -> Tensor:
    """Count, sum and sum of squares per channel [3, 1, C, 1, 1], in float64 on the processor."""
    var, mean = (exact(v).cpu() for v in torch.var_mean(f.float(), dim=(0, 2, 3), correction=0, keepdim=True))
    return len(f) * torch.stack([torch.ones_like(mean), mean, var + mean**2])
