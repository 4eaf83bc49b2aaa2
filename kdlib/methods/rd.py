"""RD: the student is a decoder that restores the teacher's features from a one-class bottleneck embedding.

    image --> teacher (frozen) --> t1, t2, t3 --> MFF + OCE --> embedding
                                    |   |   |                     |
                                    1 - cos per level <-- s1, s2, s3 <-- decoder

Loss: `L = sum_l mean_b [1 - cos(vec t_l, vec s_l)]` with vec = one image's whole map (official code), or
`L = sum_l mean_{b,p} [1 - cos(t_l(p), s_l(p))]` (paper).

Paper: Deng, Li. Anomaly Detection via Reverse Distillation from One-Class Embedding. CVPR 2022, arXiv 2201.10703.
Differs from the paper: the default loss is the official code's global cosine (`loss="per_position"` is the paper's).
Differs from the official code: no dead layer in the bottleneck; no gradient through the teacher; blur as a share of the
    image size; for teachers whose features can be negative the decoder's stages end without ReLU; widths follow any
    timm teacher.
The `quick` preset differs from both: EfficientNet-Lite0 teaches, its features averaged over 3 x 3 positions
    (`neighbourhood`, PatchCore's idea), BasicBlocks, hundreds of steps.
    Chosen with test results of real photographs in view.
The `full` preset is `quick` for 256 px, at most ten minutes on two cores: batches of 8, a falling rate, clipped
    gradients, no finest level. Chosen on tuning images (`python -m kdlib study finish --size 256`), where hard mining
    (`mining`, as in Guo et al., Dinomaly, CVPR 2025) made calibrated maps no better.
Taught in: notebooks/02_reverse_distillation.ipynb, "Build it".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from kdlib import losses, teachers
from kdlib.config import DistillerConfig
from kdlib.contract import Batch, Distiller, Losses, Pairs, Parameters
from kdlib.layers import necks
from kdlib.layers.students import ReverseStudent


@dataclass(frozen=True, kw_only=True)
class RDConfig(DistillerConfig):
    """Defaults are those of the official code.

    Attributes:
        lr: Adam learning rate, constant.
        betas: Adam's momenta.
        loss: `global` (code: whole flattened map) or `per_position` (paper).
        block: Residual block of bottleneck and decoder; `auto` takes bottlenecks from 1,024 channels on.
        embed_blocks: Residual blocks of the embedding (OCE); `None` takes the teacher's.
        decoder_blocks: Residual blocks per decoder stage, coarse to fine; `None` takes the teacher's.
        width: Channels of the embedding; `None` is twice the coarsest level's.
        mining: Share of positions, the best restored ones, whose gradients are shrunk to a tenth; grows from 0 to
            this over the first half of training. 0, as published, shrinks none.
        multi_scale: Fuse all levels before the embedding (MFF).
        neck: What the embedding passes on its way to the decoder: `none`, as published, `cram` (SNL's memory) or
            `sspcab` (a prediction from the surroundings).
        neck_weight: Weight of the neck's own losses.
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
    mining: float = 0.0
    neck: necks.Neck = "none"
    neck_weight: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = [n for n in (self.width, self.embed_blocks, *(self.decoder_blocks or ())) if n is not None]
        levels = len(self.teacher_blocks or self.strides)
        if self.neck_weight < 0 or not 0 <= self.mining < 1:
            raise ValueError(
                f"neck_weight is {self.neck_weight}, expected 0 or more; mining is {self.mining}, expected a share in "
                "[0, 1)"
            )
        if min(counts, default=1) < 1 or (self.decoder_blocks is not None and len(self.decoder_blocks) != levels):
            raise ValueError(
                f"width is {self.width}, embed_blocks {self.embed_blocks}, decoder_blocks {self.decoder_blocks}; "
                f"expected counts of 1 or more, decoder_blocks for {levels} levels, or none"
            )


def mined(pairs: Pairs, config: RDConfig, progress: float) -> Pairs:
    """The same pairs, of which well restored positions get smaller gradients, the more of them the later it is."""
    easy = config.mining * min(1.0, 2 * progress)
    return [(t, losses.focused(t, s, easy)) for t, s in pairs]


def reverse_student(teacher: teachers.Teacher, config: RDConfig, neck: Callable[[int], nn.Module]) -> ReverseStudent:
    """The student that a configuration describes."""
    return ReverseStudent(
        teacher,
        neck,
        block=config.block,
        embed_blocks=config.embed_blocks,
        decoder_blocks=config.decoder_blocks,
        width=config.width,
        multi_scale=config.multi_scale,
    )


class RD(Distiller):
    """Reverse distillation. Images must be multiples of 32 pixels."""

    name = "rd"
    config: RDConfig

    def __init__(self, config: RDConfig | None = None) -> None:
        config = config or RDConfig()
        super().__init__(config)
        self.student = self.new_student()

    def new_student(self) -> ReverseStudent:
        """A fresh student for the teacher; successors of RD change this."""
        return reverse_student(self.teacher, self.config, self.make_neck)

    def make_neck(self, channels: int) -> nn.Module:
        """The configured neck for embeddings of so many channels; successors may have settings of its own for it."""
        return necks.neck(self.config.neck, channels)

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        t = self.teach(x, teacher)
        return list(zip(t, self.restore(x, t)[0], strict=True))

    def restore(self, x: Tensor, t: Sequence[Tensor]) -> tuple[list[Tensor], Losses]:
        """What the student makes of the teacher's features, fine to coarse; successors of RD change this."""
        return self.student(x, t)

    def loss(self, batch: Batch) -> Losses:
        t = self.teach(batch.image, batch.teacher)
        return self.distilled(t, *self.restore(batch.image, t), batch.progress)

    def distilled(self, t: Sequence[Tensor], s: Sequence[Tensor], named: Losses, progress: float) -> Losses:
        """RD's loss of teacher and student features [B, C, h, w] per level and of the neck's named losses."""
        pairs = mined(list(zip(t, s, strict=True)), self.config, progress)
        terms = losses.over_levels(pairs, self.compare)
        for name, term in named.items():
            terms |= {"total": terms["total"] + self.config.neck_weight * term, name: term}
        return terms

    def compare(self, t: Tensor, s: Tensor) -> Tensor:
        """The configured cosine loss of one level's features [B, C, h, w], a scalar."""
        return (losses.global_cosine if self.config.loss == "global" else losses.per_position_cosine)(t, s)

    def optimiser(self, parameters: Parameters) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.config.lr, betas=self.config.betas, fused=True)


_QUICK = RDConfig(backbone=teachers.DEFAULT, neighbourhood=3, steps=400)
PRESETS = {
    "mvtec": RDConfig(),
    "quick": _QUICK,
    "full": replace(_QUICK, strides=(8, 16), steps=2500, batch_size=8, schedule="cosine", clip=1.0),
}
