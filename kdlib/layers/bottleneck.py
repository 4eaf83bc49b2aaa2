"""The one-class bottleneck embedding of reverse distillation: fuse three levels, then squeeze them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from kdlib.layers.residual import Kind, initialise, stage


class OneClassBottleneck(nn.Module):
    """MFF brings all levels to the coarsest size and concatenates them; OCE halves the size once more.

    Features (c1, c2, c3) at strides 4, 8, 16 become `2 * c3` channels (or `width`) at stride 32.
    Source: RD, section 3.2; layer widths from RD4AD's code, generalised to any (c1, c2, c3).

    Args:
        channels: Channels of the levels, fine to coarse, each half the size of the one before.
        kind: Residual block.
        blocks: Residual blocks in OCE.
        wide: See `kdlib.layers.residual.stage`.
        width: Channels of the embedding; default twice the coarsest level's.
        multi_scale: Fuse all levels (MFF); otherwise only the coarsest enters.

    Attributes:
        out_channels: Channels of the embedding.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        kind: Kind = "basic",
        blocks: int = 2,
        wide: bool = False,
        width: int | None = None,
        multi_scale: bool = True,
    ) -> None:
        super().__init__()
        last = channels[-1]
        self.out_channels = width or 2 * last
        self.reduce = nn.ModuleList(_halvings(channels[i:]) for i in range(len(channels))) if multi_scale else None
        fused = last * len(channels) if multi_scale else last
        self.embed = stage(kind, fused, self.out_channels, blocks, scale="down", wide=wide)
        initialise(self)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Embedding [B, out_channels, h/2, w/2] of features whose coarsest level is [B, C, h, w]."""
        if self.reduce is None:
            return self.embed(features[-1])
        return self.embed(torch.cat([reduce(f) for reduce, f in zip(self.reduce, features, strict=True)], dim=1))


def _halvings(channels: Sequence[int]) -> nn.Sequential:
    """Strided 3x3 convolutions from one level's channels through the next ones to the last."""
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise(channels):
        layers += [
            nn.Conv2d(c_in, c_out, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
