"""A memory of normality: keys that a feature asks, and values that it gets back; and two students that have it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib.layers.residual import Kind, initialise, stage, stem, without_last_relu
from kdlib.layers.students import Named
from kdlib.teachers import Teacher, normalise

Asked = Literal["keys", "values"]
MakeMemory = Callable[[int], nn.Module]
"""Makes a memory for features of so many channels."""


class NormalityMemory(nn.Module):
    """Every position asks the keys, and recalls a mixture of the values.

    With the slots `k_l`, `v_l` and a feature `x` at one position::

        a_l = softmax_l(cos(k_l, x) / temperature)        recalled = sum_l a_l v_l

    Source: MemKD's public code, where the temperature is 1 and neither keys nor values are parameters.

    Args:
        channels: Channels of the features.
        slots: Number of keys, and of values.
        temperature: Small values let the best key decide alone.
        trainable: `False` keeps keys and values as they were drawn.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, channels: int, *, slots: int = 50, temperature: float = 1.0, trainable: bool = True) -> None:
        super().__init__()
        self.temperature = temperature
        for name in ("keys", "values"):
            drawn = torch.randn(slots, channels)
            if trainable:
                self.register_parameter(name, nn.Parameter(drawn))
            else:
                self.register_buffer(name, drawn)

    def forward(self, x: Tensor, ask: Asked = "keys") -> Tensor:
        """What features [B, C, h, w] recall, [B, C, h, w]; they ask the keys, or the values themselves."""
        # Half precision would round the shares of slots that are nearly alike.
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(self.shares(x, ask), self.values.mT[:, :, None, None])

    def shares(self, x: Tensor, ask: Asked = "keys") -> Tensor:
        """Share of every slot in what features [B, C, h, w] recall, [B, slots, h, w]; they sum to 1."""
        with torch.autocast(x.device.type, enabled=False):
            asked = F.normalize(self.keys if ask == "keys" else self.values, dim=1)
            cosines = F.conv2d(F.normalize(x.float(), dim=1), asked[:, :, None, None])
            return F.softmax(cosines / self.temperature, dim=1)

    def alignment(self) -> Tensor:
        """Cosines [slots, slots] between keys and values."""
        with torch.autocast(self.keys.device.type, enabled=False):
            return F.normalize(self.keys, dim=1) @ F.normalize(self.values, dim=1).mT


class RecallTrunk(nn.Module):
    """A ResNet from random weights with a teacher's levels; a memory between each two of them.

    For a ResNet with 3x3 convolutions it is that network, for a wide ResNet-50 a ResNet-50, for any other network a
    ResNet with its channels.

    Args:
        teacher: Whose levels are imitated; each stride must be the one before, doubled any number of times.
        memory: Makes the memory behind a level.
        block: Residual block; `auto` is the teacher's.

    Raises:
        ValueError: If the teacher's strides are others.
    """

    def __init__(
        self, teacher: Teacher, memory: MakeMemory, *, block: Literal["auto", "basic", "bottleneck"] = "auto"
    ) -> None:
        super().__init__()
        self.teacher_name, style = teacher.name, teacher.style()
        kind = style.block if block == "auto" else block
        width = min(64, teacher.channels[0])
        self.normalise = normalise()
        self.stem = stem(width)
        entering, stages = width, []
        for (before, stride), leaving, count in zip(
            pairwise([4, *teacher.strides]), teacher.channels, style.blocks, strict=True
        ):
            row = _level(kind, entering, leaving, count, _halvings(teacher.name, before, stride))
            if style.signed:
                without_last_relu(row[-1])
            stages.append(row)
            entering = 2 * leaving
        self.stages = nn.ModuleList(stages)
        self.memories = nn.ModuleList(memory(channels) for channels in teacher.channels[:-1])
        initialise(self)

    def forward(self, x: Tensor, t: Sequence[Tensor]) -> tuple[list[Tensor], Named]:
        """Student features like `t`, [B, C, h, w] per level, of images `x` [B, 3, H, W], and no losses.

        Raises:
            ValueError: If images of this size give levels of other sizes than the teacher's.
        """
        first, *others = self.stages
        features = [first(self.stem(self.normalise(x)))]
        for memory, row in zip(self.memories, others, strict=True):
            features.append(row(torch.cat([features[-1], memory(features[-1])], dim=1)))
        sizes = [[tuple(f.shape[-2:]) for f in levels] for levels in (t, features)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"images of {x.shape[-2]} x {x.shape[-1]} px give maps of {sizes[0]} positions in "
                f"'{self.teacher_name}' and {sizes[1]} in its student; choose multiples of 32 pixels, or another "
                "network, such as a ResNet"
            )
        return features, {}


def _halvings(name: str, before: int, stride: int) -> int:
    """How often the size must be halved between two strides."""
    times = (stride // before).bit_length() - 1
    if before << max(times, 0) != stride:
        raise ValueError(
            f"'{name}' gives a level at stride {stride} after one at {before}; a student that halves sizes needs "
            "strides from 4 on that do so, like (4, 8, 16): choose such strides, or another network"
        )
    return times


def _level(kind: Kind, c_in: int, c_out: int, blocks: int, halvings: int) -> nn.Sequential:
    """Residual blocks that halve the size so many times; of the halvings beyond the first each is a block more."""
    if halvings == 0:
        return stage(kind, c_in, c_out, blocks, scale="same")
    extra = [stage(kind, c_in if i == 0 else c_out, c_out, 1, scale="down") for i in range(halvings - 1)]
    return nn.Sequential(*extra, *stage(kind, c_out if extra else c_in, c_out, blocks, scale="down"))
