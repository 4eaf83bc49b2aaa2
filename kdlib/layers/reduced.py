"""A small student that reads images: of a ResNet the stem, and one residual block per level instead of two or more.

    image --> stem, stride 4 --> block --> stride 8 --> block --> stride 16 ...
                                           level 1                level 2

Source: MixedTeacher's code, where it imitates a ResNet-18's levels at strides 4 and 8, averaged to half their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from kdlib.layers.residual import initialise, stage, stem, without_last_relu
from kdlib.teachers import Pyramid


class ReducedStudent(nn.Module):
    """The stem of a ResNet, then one residual block per level, each of which halves the size.

    Args:
        teacher: Whose levels, averaged over 2 x 2 positions, are imitated. Where they can be negative, no ReLU ends
            what imitates them.
        widths: Channels inside, per level; `None` takes the teacher's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, teacher: Pyramid, widths: Sequence[int] | None = None) -> None:
        super().__init__()
        widths = widths or teacher.channels
        first = widths[0]
        self.register_buffer("mean", teacher.mean.clone(), persistent=False)
        self.register_buffer("std", teacher.std.clone(), persistent=False)
        self.stem = stem(first)
        self.stages = nn.ModuleList(stage("basic", a, b, 1, scale="down") for a, b in pairwise([first, *widths]))
        same = tuple(widths) == tuple(teacher.channels)
        self.heads = nn.ModuleList(
            nn.Identity() if same else nn.Conv2d(a, b, 1) for a, b in zip(widths, teacher.channels, strict=True)
        )
        initialise(self)
        if same and teacher.style().signed:
            for row in self.stages:
                without_last_relu(row.get_submodule("0"))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features [B, C, h, w] per level at strides 8, 16, ... of images [B, 3, H, W] in 0..1."""
        z, features = self.stem((x - self.mean) / self.std), []
        for row, head in zip(self.stages, self.heads, strict=True):
            z = row(z)
            features.append(head(z))
        return features
