"""The student of reverse distillation: a ResNet turned around, from one embedding to the whole pyramid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from kdlib.layers.residual import Kind, initialise, stage, without_last_relu


class PyramidDecoder(nn.Module):
    """Restores features fine to coarse (c1, c2, c3) from an embedding at half the coarsest level's size.

    Source: RD, section 3.1; layers from RD4AD's code. There are no skip connections from the teacher.

    Args:
        c_in: Channels of the embedding.
        channels: Channels to restore, fine to coarse.
        kind: Residual block.
        blocks: Blocks per stage, coarse to fine.
        wide: See `kdlib.layers.residual.stage`.
        signed: The teacher's features can be negative: no ReLU at the end of a stage's output.
        memory: Makes a module for so many channels; every stage gets what enters it side by side with what that module
            makes of it. `None`, as in RD: what enters it alone.
    """

    def __init__(
        self,
        c_in: int,
        channels: Sequence[int],
        *,
        kind: Kind = "basic",
        blocks: Sequence[int] = (2, 2, 2),
        wide: bool = False,
        signed: bool = False,
        memory: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        steps = list(pairwise([c_in, *reversed(channels)]))
        self.memories = nn.ModuleList(memory(entering) for entering, _ in steps) if memory else None
        parts = 2 if memory else 1
        stages = [stage(kind, parts * a, b, n, scale="up", wide=wide) for (a, b), n in zip(steps, blocks, strict=True)]
        if signed:
            for row in stages:
                without_last_relu(row[-1])
        self.stages = nn.ModuleList(stages)
        initialise(self)

    def forward(self, embedding: Tensor) -> list[Tensor]:
        """Student features fine to coarse, [B, C, h, w] each, from an embedding [B, c_in, h, w]."""
        features = []
        for index, row in enumerate(self.stages):
            if self.memories is not None:
                embedding = torch.cat([embedding, self.memories[index](embedding)], dim=1)
            embedding = row(embedding)
            features.append(embedding)
        return features[::-1]
