"""DNP-KD's SubNet: a small encoder-decoder that squeezes one level of features and spreads it out again."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib.layers.instance_norm import InstanceNorm

_CLOSED = 1e-6


class SubNet(nn.Module):
    """Halves features [B, C, h, w] `poolings` times, passes them through a gate and doubles them as often.

    Widths are C -> C/2 -> C -> 2C ...; the way up sees the outputs of the way down. The innermost stage, scaled by
    `gamma`, is closed at first and opens in training. Sizes need not be even: halves are rounded up, and what
    doubling makes too large is cut off.
    Source: DNP-KD's code, which has two poolings and even sizes; the rest is our extension.

    Args:
        channels: Channels in and out, at least 8.
        poolings: How often height and width are halved.
    """

    def __init__(self, channels: int, poolings: int = 2) -> None:
        super().__init__()
        half = channels // 2
        widths = [channels, *(half * 2**i for i in range(poolings))]
        self.down = nn.ModuleList(_convolutions(a, b) for a, b in pairwise(widths))
        inner = widths[-1]
        self.residual = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(inner, inner // 4, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(inner // 4, inner, 1, bias=False),
        )
        self.gamma = nn.Parameter(torch.full((1, inner, 1, 1), _CLOSED))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * b, a, 4, stride=2, padding=1) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Features of the same shape [B, C, h, w]."""
        skips, sizes = [], []
        for convolutions in self.down:
            sizes.append(x.shape[-2:])
            x = F.avg_pool2d(convolutions(x), 2, ceil_mode=True)
            skips.append(x)
        x = F.relu((x + self.residual(x)) * self.gamma)
        for i in reversed(range(len(skips))):
            x = self.up[i](torch.cat([x, skips[i]], dim=1))
            h, w = sizes[i]
            x = x if x.shape[-2:] == sizes[i] else x[..., :h, :w]
            x = F.relu(x, inplace=True) if i else x
        return x


def _convolutions(c_in: int, c_out: int) -> nn.Sequential:
    narrow = min(c_in, c_out)
    pair = (nn.Conv2d(c_in, narrow, 3, padding=1, bias=False), nn.Conv2d(narrow, c_out, 3, padding=1, bias=False))
    return nn.Sequential(*(layer for conv in pair for layer in (conv, InstanceNorm(), nn.ReLU(inplace=True))))
