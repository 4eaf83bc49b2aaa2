"""A student for vision transformers, whose levels have one size: fused into one map, which a transformer continues."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from timm.layers import QuickGELU
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib.teachers import Teacher

_GRID = 16  # positions per side that have a learned place of their own; other sizes are interpolated
_HEAD = 64  # channels of an attention head


class TransformerStudent(nn.Module):
    """Restores levels of one size, in order, from the outputs of a transformer's layers.

    Each level passes a 1x1 convolution, batch normalisation and ReLU; all are joined and brought to one level's
    channels by a 1x1 convolution; a learned position is added. Of six layers and three levels the second, fourth and
    sixth layer restore the first, second and third level. Source: the second version of AAND's code.

    Args:
        teacher: Whose levels are restored; all of one stride and with equally many channels.
        depth: Layers of the transformer, a multiple of the levels.

    Raises:
        ValueError: If the levels differ in stride or channels, or the depth is no multiple of their number.
    """

    def __init__(self, teacher: Teacher, depth: int = 6) -> None:
        super().__init__()
        levels, (width, *others) = len(teacher.channels), dict.fromkeys(teacher.channels)
        if others or len(set(teacher.strides)) > 1:
            raise ValueError(
                f"'{teacher.name}' gives levels of {teacher.channels} channels at strides {teacher.strides}; a "
                "transformer student needs equal ones: blocks of a vision transformer, like teacher_blocks=(4, 8, 12)"
            )
        if depth % levels:
            raise ValueError(f"depth is {depth}; expected a multiple of the {levels} levels that layers restore")
        self.reduce = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
            for _ in range(levels)
        )
        self.join = nn.Conv2d(levels * width, width, 1, bias=False)
        self.position = nn.Parameter(width**-0.5 * torch.randn(1, width, _GRID, _GRID))
        self.before = nn.LayerNorm(width)
        heads = max(1, width // _HEAD)
        self.layers = nn.ModuleList(Block(width, heads, qkv_bias=True, act_layer=QuickGELU) for _ in range(depth))

    def forward(self, x: Tensor, t: Sequence[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Student features like `t`, [B, C, h, w] per level, and no losses; images `x` are not looked at."""
        z = self.join(torch.cat([reduce(f) for reduce, f in zip(self.reduce, t, strict=True)], dim=1))
        h, w = z.shape[-2:]
        place = F.interpolate(self.position, size=(h, w), mode="bicubic", align_corners=False)
        tokens = self.before((z + place).flatten(2).mT)
        outputs, every = [], len(self.layers) // len(t)
        for number, layer in enumerate(self.layers, start=1):
            tokens = layer(tokens)
            if number % every == 0:
                outputs.append(tokens.mT.unflatten(2, (h, w)))
        return outputs, {}
