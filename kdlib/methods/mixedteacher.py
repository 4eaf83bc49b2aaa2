"""MixedTeacher: a small student imitates one teacher's fine levels; another teacher's levels say where to believe it.

    image --+--> first teacher  (frozen) --> t1, t2, averaged 2 x 2 --+--> 1 - cos, added --> fine map ------+
            +--> reduced student ----------> s1, s2 ------------------+                                      |
            |                                                                                             product
            +--> second teacher (frozen) --> t3, t4 --+--> 1 - cos, added --> context map --> contrast ------+
            +--> student like it ----------> s3, s4 --+

Loss: `L = mean_{l,b,p} ||t_l^ - s_l^||^2 / 2` of each branch, features L2-normalised over channels; the branches share
    nothing but the optimiser and, where gradients are clipped, their norm.
Score: `A = A_fine * (max A_context - min A_context) * A_context / ||A_context||`.

Paper: Thomine, Snoussi, Soua. MixedTeacher: Knowledge Distillation for Fast Inference Textural Anomaly Detection.
    VISAPP 2023, arXiv 2306.09859.
Differs from the paper: its body was not at hand, only the abstract; all else is that of the official code.
Differs from the official code (SimonThomine/MixedTeacher): the second student starts at random
    (`student_init="pretrained"` is the code's: it starts as its teacher, and only statistics of normalisation and noise
    of the optimiser move it away); the context map has one norm per image (`contrast="column"` is the code's: one per
    column, so that normal columns weigh as much as defective ones), which does not depend on its size; the factor max -
    min is an image's own, not a batch's; blur in both directions, not along rows; both branches train together, in
    training mode in every epoch; torchvision's weights of ResNet-18, not timm's own; the last epoch is kept; losses are
    means over the batch. `lr` is the schedule's highest rate, ten times the code's `lr`, which the schedule replaces;
    torch's schedule moves the first beta, too.
The `quick` preset differs from both: EfficientNet-Lite1 teaches the fine branch, where a larger teacher costs nothing
    in training, and -Lite0 the context; their weights come with packages. Their narrow levels are imitated by a student
    of the paper's width with 1x1 convolutions behind it; features averaged over 3 x 3 positions (`neighbourhood`,
    PatchCore's idea); a rate that falls from the start. Chosen by cost and by reasoning. `full` has the teachers the
    other way round, a student as narrow as its teacher, and more steps.
Taught in: notebooks/10_textures.ipynb, "Build it".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import losses, maps, teachers
from kdlib.config import DistillerConfig, Fusion
from kdlib.contract import Batch, Distiller, Losses, Pairs, Parameters
from kdlib.layers.reduced import ReducedStudent

Contrast = Literal["map", "column", "none"]


@dataclass(frozen=True, kw_only=True)
class MixedTeacherConfig(DistillerConfig):
    """Defaults are those of the official code, but for its mistakes.

    Attributes:
        backbone: Two timm names with `+` between them: of the fine branch, then of the context branch.
        strides: Levels of the first network, in pixels, for the fine branch.
        context_strides: Levels of the second network.
        fusion: How the maps of the two branches are fused; levels of a branch are added.
        lr: Adam's rate, the highest of the schedule.
        betas: Adam's momenta; `one_cycle` moves the first.
        student: Of the fine branch: `reduced`, one residual block per level, at half the teacher's sizes; or `full`,
            a network like the teacher.
        widths: Channels inside the reduced student at each level; `None` takes the teacher's. Others end in a 1x1
            convolution per level.
        student_init: `random`, or `pretrained`: students that are networks like their teacher start as its copy, which
            agrees with it to the last place where `neighbourhood` is 1.
        contrast: Norm that the context map is divided by: of the whole `map`, of each `column`, or `none`.
        by_size: Level maps weigh the more the fewer positions they have, the coarser of two levels four times as much.
    """

    backbone: str = "resnet18+efficientnet_b0"
    strides: tuple[int, ...] = (4, 8)
    context_strides: tuple[int, ...] = (16, 32)
    batch_size: int = 8
    fusion: Fusion = "product"
    lr: float = 4e-3
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["constant", "cosine", "one_cycle"] = "one_cycle"
    student: Literal["reduced", "full"] = "reduced"
    widths: tuple[int, ...] | None = None
    student_init: Literal["random", "pretrained"] = "random"
    contrast: Contrast = "map"
    by_size: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        networks = self.backbone.split(teachers.JOIN)
        if len(networks) != 2 or self.teacher_blocks is not None or min(self.context_strides, default=0) < 1:
            raise ValueError(
                f"backbone is '{self.backbone}', context_strides {self.context_strides}, teacher_blocks "
                f"{self.teacher_blocks}; expected two networks with '{teachers.JOIN}' between them, strides for each, "
                "and no blocks"
            )
        if self.student == "reduced" and self.strides != tuple(4 * 2**i for i in range(len(self.strides))):
            raise ValueError(
                f"strides are {self.strides}; the levels of a reduced student are 4, 8, 16, ... from the first on: "
                "choose such strides, or student='full'"
            )
        if self.widths is not None and (len(self.widths) != len(self.strides) or min(self.widths) < 1):
            raise ValueError(
                f"widths are {self.widths}; expected a positive number for each of {self.strides}, or none"
            )

    def teacher_strides(self) -> tuple[tuple[int, ...], ...]:
        return self.strides, self.context_strides


def contrasted(amap: Tensor, contrast: Contrast) -> Tensor:
    """Maps [B, 1, H, W] divided by their root mean square, times the largest minus the smallest value of the image."""
    if contrast == "none":
        return amap
    spread = amap.amax((2, 3), keepdim=True) - amap.amin((2, 3), keepdim=True)
    square = amap.square().mean((2, 3) if contrast == "map" else 2, keepdim=True)
    return spread * amap / square.sqrt().clamp_min(1e-12)


class MixedTeacher(Distiller):
    """Two teachers, two students, one map."""

    name = "mixedteacher"
    cycles_momentum = True
    config: MixedTeacherConfig
    teacher: teachers.InTurn

    def __init__(self, config: MixedTeacherConfig | None = None) -> None:
        config = config or MixedTeacherConfig()
        super().__init__(config)
        first, second = self.teacher.networks()
        self.fine: nn.Module
        if config.student == "reduced":
            if not isinstance(first, teachers.Pyramid):
                raise ValueError(
                    f"'{first.name}' is no timm network, which student='reduced' needs; take student='full'"
                )
            self.fine = ReducedStudent(first, config.widths)
        else:
            self.fine = teachers.student_like(first, config.student_init)
        self.context = teachers.student_like(second, config.student_init)

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        fine, context = self.teacher.split(self.teach(x, teacher))
        if self.config.student == "reduced":
            multiple = 2 * self.config.strides[-1]
            if x.shape[-2] % multiple or x.shape[-1] % multiple:
                raise ValueError(
                    f"images are {x.shape[-2]} x {x.shape[-1]} px; height and width must be multiples of {multiple} "
                    "because a reduced student halves sizes. Choose such a size."
                )
            fine = [F.avg_pool2d(t, 2) for t in fine]
        return list(zip([*fine, *context], [*self.fine(x), *self.context(x)], strict=True))

    def distance(self, t: Tensor, s: Tensor) -> Tensor:
        return 0.5 * losses.normalised_l2(t, s)

    def loss(self, batch: Batch) -> Losses:
        levels = [self.distance(t, s).mean() for t, s in self.pairs(batch.image, batch.teacher)]
        fine, context = (torch.stack(branch).mean() for branch in self.teacher.split(levels))
        return {"total": fine + context, "fine": fine, "context": context}

    def branch_maps(self, levels: Sequence[Tensor], size: Sequence[int], by_size: bool) -> list[Tensor]:
        """The fine and the context map [B, 1, H, W], each the sum of its level maps [B, 1, h, w]."""
        added = []
        for branch in self.teacher.split(levels):
            finest = branch[0].shape[-2:].numel()
            weighted = [level * (finest / level.shape[-2:].numel()) if by_size else level for level in branch]
            added.append(maps.resized(weighted, size, align_corners=self.config.align_corners).sum(0))
        return added

    def fuse(self, levels: Sequence[Tensor], size: Sequence[int], fusion: Fusion | None = None) -> Tensor:
        """As the paper has it. Where a fusion is given, levels are taken to have one unit: they are added and fused."""
        c = self.config
        fine, context = self.branch_maps(levels, size, c.by_size and fusion is None)
        if fusion is None:
            context = contrasted(context, c.contrast)
        return maps.fuse([fine, context], size, fusion=fusion or c.fusion, blur=c.blur, align_corners=c.align_corners)

    def optimiser(self, parameters: Parameters) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.config.lr, betas=self.config.betas, fused=True)


_QUICK = MixedTeacherConfig(
    backbone=f"tf_efficientnet_lite1{teachers.JOIN}{teachers.DEFAULT}",
    context_strides=(8, 16),
    widths=(64, 128),
    neighbourhood=3,
    steps=150,
    schedule="cosine",
    clip=1.0,
)
PRESETS = {
    "mvtec": MixedTeacherConfig(),
    "quick": _QUICK,
    "full": replace(_QUICK, backbone=f"{teachers.DEFAULT}{teachers.JOIN}tf_efficientnet_lite1", widths=None, steps=500),
}
