"""SingleNet: one level is enough for a texture, if the student must fill in what lies between a few samples of it.

    image --> teacher (frozen) --> t (one level) ------------------------+--> low pass --+
                                   |                                     |               +--> 1 - cos per position
                                   +--> every 4th row and column --> FFC, FFC, FFC --> s --> low pass --+
                                         (1/16 of t)                 (x 1, x 2, x 2)      (scoring only)

Loss: `L = mean_{b,p} ||t^ - s^||^2 / 2`, features L2-normalised over channels at each position, without the filter.

Paper: Thomine, Snoussi. SingleNet: Single-Layer Distillation with Fourier
    Convolutions for Texture Anomaly Detection. WACV 2025, pp. 8962-8971.
Differs from the paper: its body was not at hand, only the abstract; all else is that of the code of its first author.
    No published number is known to us.
Differs from the official code (SimonThomine/DistillationAD): losses are means over the batch; any power of 2 as
    sampling; the code's images have 224 px and are resized by OpenCV without antialiasing, and its blur of 4 px is one
    of them; the cutoff is in cycles per position, so that it fits maps of any size, and the spectrum's centre is right
    where they are not square; the filter may keep signs (`low_pass="real"`; the code takes the absolute value after
    each of two passes); blur in both directions, not along rows; training mode in every epoch; the last epoch is kept.
    The teacher's weights are torchvision's, not timm's own, which the code's bare name stands for. Taken over: batch
    normalisation's momentum of 0.01, no residual around the Fourier unit. `lr` is the schedule's highest rate, ten
    times the code's `lr`, which the schedule replaces; torch's schedule moves the first beta, too.
The `quick` preset differs from both: EfficientNet-Lite0, whose features can be negative, so that the student ends
    without LeakyReLU and the filter keeps signs; features averaged over 3 x 3 positions (`neighbourhood`, PatchCore's
    idea); a faster momentum, for hundreds of steps; a rate that falls from the start; the paper's 128 channels inside.
    Chosen by cost and by reasoning.
The `full` preset has a second level, at stride 16, with a student of its own: better on tuning images over all six
    products; and more steps.
Taught in: notebooks/10_textures.ipynb, "Build it".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from kdlib import losses, teachers
from kdlib.config import DistillerConfig
from kdlib.contract import Batch, Distiller, Losses, Pairs, Parameters
from kdlib.layers.fast_fourier import FastFourierBlock, Paths
from kdlib.layers.low_pass import low_pass


@dataclass(frozen=True, kw_only=True)
class SingleNetConfig(DistillerConfig):
    """Defaults are those of the official code.

    Attributes:
        strides: The level, in pixels; more than one gives a student each, whose maps are fused.
        lr: Adam's rate, the highest of the schedule.
        betas: Adam's momenta; `one_cycle` moves the first.
        keep: The student sees every so many-th row and column, a power of 2; with 1 it sees everything.
        ratio: Share of the channels on the path that sees the whole map, in [0, 1).
        width: Channels inside the student, both paths together; `None` takes the level's.
        momentum: Of batch normalisation behind each path.
        low_pass: The filter on both maps when scoring, see `kdlib.layers.low_pass`; `auto`: the code's `magnitude`, or
            `real` where the teacher's features can be negative, which an absolute value would turn round.
        cutoff: Its cutoff in cycles per position; the code's is 10 of 28.
    """

    backbone: str = "resnet18"
    strides: tuple[int, ...] = (8,)
    epochs: int = 50
    batch_size: int = 8
    lr: float = 4e-3
    betas: tuple[float, float] = (0.5, 0.999)
    schedule: Literal["constant", "cosine", "one_cycle"] = "one_cycle"
    keep: int = 4
    ratio: float = 0.5
    width: int | None = None
    momentum: float = 0.01
    low_pass: Literal["auto", "real", "magnitude", "none"] = "auto"
    cutoff: float = 10 / 28

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep < 1 or self.keep & (self.keep - 1):
            raise ValueError(f"keep is {self.keep}; expected a power of 2: 1, 2, 4, ...")
        too_narrow = self.width is not None and self.width < 1
        if not 0 <= self.ratio < 1 or not 0 < self.momentum <= 1 or self.cutoff <= 0 or too_narrow:
            raise ValueError(
                f"ratio is {self.ratio}, momentum {self.momentum}, cutoff {self.cutoff}, width {self.width}; expected "
                "a ratio in [0, 1), a momentum in (0, 1], a positive cutoff, and a width of 1 or more, or none"
            )


def sampled(t: Tensor, keep: int) -> Tensor:
    """Every `keep`-th row and column of features [B, C, h, w], the last of each group, as in the code."""
    return t[..., keep - 1 :: keep, keep - 1 :: keep]


class Restorer(nn.Module):
    """The student of one level: fast Fourier blocks that double the size until it is the level's again.

    Args:
        channels: Channels of the level.
        config: The method's settings.
        signed: The teacher's features can be negative: no LeakyReLU at the end.
    """

    def __init__(self, channels: int, config: SingleNetConfig, signed: bool) -> None:
        super().__init__()
        doublings = config.keep.bit_length() - 1
        inside = Paths.of(config.width or channels, config.ratio)
        widths = [Paths(channels, 0), *[inside] * doublings, Paths(channels, 0)]
        self.blocks = nn.ModuleList(
            FastFourierBlock(a, b, doubling=i > 0, momentum=config.momentum, signed=signed and i == doublings)
            for i, (a, b) in enumerate(pairwise(widths))
        )

    def forward(self, samples: Tensor) -> Tensor:
        """Features [B, C, h, w] of samples [B, C, h / keep, w / keep]."""
        local, whole = samples, None
        for block in self.blocks:
            local, whole = block(local, whole)
        return local


class SingleNet(Distiller):
    """Single-layer distillation with Fourier convolutions. Maps must be multiples of `keep` positions."""

    name = "singlenet"
    cycles_momentum = True
    config: SingleNetConfig

    def __init__(self, config: SingleNetConfig | None = None) -> None:
        config = config or SingleNetConfig()
        super().__init__(config)
        self.signed = self.teacher.style().signed
        self.students = nn.ModuleList(Restorer(width, config, self.signed) for width in self.teacher.channels)

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        t, keep = self.teach(x, teacher), self.config.keep
        sizes = [tuple(level.shape[-2:]) for level in t]
        if any(length % keep for size in sizes for length in size):
            raise ValueError(
                f"images of {x.shape[-2]} x {x.shape[-1]} px have maps of {sizes} positions; the student samples every "
                f"{keep}th: choose a height and width that are multiples of {keep * max(self.teacher.strides)}"
            )
        return [(level, student(sampled(level, keep))) for level, student in zip(t, self.students, strict=True)]

    def filtered(self, x: Tensor) -> Pairs:
        """Both sides of `pairs` behind the low-pass filter, as they are scored."""
        kind = self.config.low_pass
        if kind == "auto":
            kind = "real" if self.signed else "magnitude"
        smooth = partial(low_pass, cutoff=self.config.cutoff, kind=kind)
        return [(smooth(t), smooth(s)) for t, s in self.pairs(x)]

    def level_maps(self, x: Tensor) -> list[Tensor]:
        return [self.distance(t, s)[:, None] for t, s in self.filtered(x)]

    def residuals(self, x: Tensor) -> list[Tensor]:
        return [losses.residual(t, s) for t, s in self.filtered(x)]

    def distance(self, t: Tensor, s: Tensor) -> Tensor:
        return 0.5 * losses.normalised_l2(t, s)

    def loss(self, batch: Batch) -> Losses:
        return losses.over_levels(self.pairs(batch.image, batch.teacher), lambda t, s: self.distance(t, s).mean())

    def optimiser(self, parameters: Parameters) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.config.lr, betas=self.config.betas, fused=True)


_QUICK = SingleNetConfig(
    backbone=teachers.DEFAULT,
    neighbourhood=3,
    steps=600,
    schedule="cosine",
    clip=1.0,
    width=128,
    momentum=0.1,
    low_pass="real",
)
PRESETS = {
    "mvtec": SingleNetConfig(),
    "quick": _QUICK,
    "full": replace(_QUICK, strides=(8, 16), steps=4000),
}
