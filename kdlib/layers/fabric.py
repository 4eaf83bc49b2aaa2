"""DBFAD's student: a bottleneck of 1x1 convolutions, attention, a decoder, and branches from each level to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from kdlib.layers.attention import Axis, PositionAttention
from kdlib.layers.residual import initialise, stage, without_last_relu
from kdlib.layers.students import Features, Named, check_sizes, check_strides
from kdlib.teachers import Teacher

STEM = 2
"""Stride of a level that is pooled to the size of the next."""


class FabricStudent(nn.Module):
    """Restores a teacher's levels, fine to coarse, out of their sum.

    A convolution of 1x1 that halves the size reads one position in four; two of them read one in sixteen.
    Source: DBFAD, code; layer widths and sizes generalised to any teacher.

    Args:
        teacher: Whose features are restored, a level at stride 2 after pooling; each stride must double the one before.
        neck: Makes the neck for embeddings of so many channels.
        residuals: Branches that carry each level, through a convolution and attention, to the decoder's next coarser.
        blocks: Residual blocks per decoder stage.
        axis: Of all attention; see `kdlib.layers.attention.PositionAttention`.

    Raises:
        ValueError: If the teacher's strides do not double.
    """

    def __init__(
        self,
        teacher: Teacher,
        neck: Callable[[int], nn.Module],
        *,
        residuals: bool = True,
        blocks: int = 2,
        axis: Axis = "width",
    ) -> None:
        super().__init__()
        check_strides(teacher)
        self.strides = [2 * STEM if stride == STEM else stride for stride in teacher.strides]
        channels, last = teacher.channels, teacher.channels[-1]
        self.paths = nn.ModuleList(self._path(channels, level) for level in range(len(channels)))
        self.squeeze = nn.Sequential(convolved(last, last), convolved(last, last), convolved(last, 2 * last, stride=2))
        self.neck = neck(2 * last)
        self.attend = PositionAttention(2 * last, 2 * last, kernel=3, axis=axis)
        self.branches = nn.ModuleList(self._branches(channels, axis)) if residuals else None
        self.stages = nn.ModuleList(self._stages(channels, blocks))
        if teacher.style().signed:
            for row in self.stages:
                without_last_relu(row[-1])  # type: ignore[index]
        initialise(self)

    def forward(self, x: Tensor, t: Sequence[Tensor]) -> tuple[Features, Named]:
        """Student features like `t`, [B, C, h, w] per level, and the neck's losses.

        Raises:
            ValueError: If images `x` [B, 3, H, W] cannot be halved often enough.
        """
        halving = t[1:] if self.strides[:1] == self.strides[1:2] else t
        check_sizes(x, halving, 2 * self.strides[-1])
        z, named = self.neck(self.embed(t))
        z, helped = self.attend(z), self.help(t)
        restored: Features = []
        for row, branch in zip(self.stages, reversed(helped), strict=True):
            z = row(z) if branch is None else row(z) + branch
            restored.append(z)
        return restored[::-1], named

    def embed(self, t: Sequence[Tensor]) -> Tensor:
        """The embedding [B, 2 C, h/2, w/2] that enters the neck, of levels whose coarsest is [B, C, h, w]."""
        return self.squeeze(sum(path(f) for path, f in zip(self.paths, t, strict=True)))

    def help(self, t: Sequence[Tensor]) -> list[Tensor | None]:
        """What is added to each restored level: nothing to the finest, to others what the next finer level gives."""
        if self.branches is None:
            return [None] * len(t)
        return [None, *(branch(f) for branch, f in zip(self.branches, t[:-1], strict=True))]

    def _path(self, channels: Sequence[int], level: int) -> nn.Sequential:
        """1x1 convolutions from a level to the coarsest, each halving the size; the coarsest keeps its own."""
        coarser = [c for c, stride in zip(channels, self.strides, strict=True) if stride > self.strides[level]]
        if not coarser:
            return nn.Sequential(convolved(channels[level], channels[-1]))
        return nn.Sequential(*(convolved(a, b, stride=2) for a, b in pairwise([channels[level], *coarser])))

    def _branches(self, channels: Sequence[int], axis: Axis) -> list[nn.Module]:
        steps = zip(pairwise(channels), pairwise(self.strides), strict=True)
        return [
            nn.Sequential(
                convolved(a, b, kernel=3),
                nn.AvgPool2d(coarse // fine),
                PositionAttention(b, b, hidden=True, axis=axis),
            )
            for (a, b), (fine, coarse) in steps
        ]

    def _stages(self, channels: Sequence[int], blocks: int) -> list[nn.Module]:
        """Decoder stages from coarse to fine; one that restores a level of the same size as the one before keeps it."""
        widths = [*channels, 2 * channels[-1]]
        strides = [*self.strides, 2 * self.strides[-1]]
        rows = [
            stage("basic", c_in, c_out, blocks, scale="up" if coarse > fine else "same")
            for (c_out, c_in), (fine, coarse) in zip(pairwise(widths), pairwise(strides), strict=True)
        ]
        return list(reversed(rows))


def convolved(c_in: int, c_out: int, *, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, ReLU, then batch norm, in DBFAD's order."""
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=False), nn.ReLU(), nn.BatchNorm2d(c_out)
    )
