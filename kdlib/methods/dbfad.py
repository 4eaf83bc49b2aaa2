"""DBFAD: a light student in reverse for fabrics, which attention and branches from one level below help to restore.

    image --> teacher (frozen) --> stem, pooled --> t0    t1    t2    t3      strides 4, 4, 8, 16
                                                     |     |     |     |
                     1x1 convolutions, summed <------+-----+-----+-----+
                     |                               |     |     |
                     1x1 -> SSPCAB -> attention      r1    r2    r3           3x3, attention: from a level to the next
                     |                               |     |     |
                     decoder --> d3 + r3 --> d2 + r2 --> d1 + r1 --> d0       d_l is compared with t_l

Loss: `L = 1/4 sum_l mean_{b,p} ||t_l^ - d_l^||^2 / 2 + 0.1 mean (z' - z)^2`, features L2-normalised over channels at
    each position, z and z' before and after SSPCAB. Map: `sum_l w_l ||t_l^ - d_l^||^2 / 2` with w = 1 : 1 : 4 : 16.

Paper: Thomine, Snoussi. Distillation-based fabric anomaly detection. Textile Research Journal 94(5-6), 2024,
    arXiv 2401.02287.
Differs from the paper: its text beyond the abstract was not at hand; layers and settings are the official code's.
Differs from the official code: SSPCAB's own loss is added (`neck_weight=0` is the code, which forgets it; what it
    guesses is signed here and its guess is not, so that it cannot reach 0); the batch is averaged, not summed; blur in
    two dimensions (the code's is along rows); training images are not blurred (`train_blur` blurs them as the code
    does, which leaves test images sharp); a constant rate and the last step, instead of a rate that falls on a plateau,
    early stopping and a checkpoint by normal images; batch norm keeps learning (the code's is fixed after the first
    epoch); torchvision's weights of ResNet-34, not timm's own; any size, and any timm teacher whose strides double:
    with the strides (4, 8, 16) there is no stem, and decoder stages end without ReLU where features can be negative.
The `quick` and `full` presets differ further: EfficientNet-Lite0 teaches, its features averaged over 3 x 3 positions
    (`neighbourhood`, PatchCore's idea), SSPCAB with a gap of 0, as in `sspcab`; hundreds of steps. `full` is the
    variant without branches, on two levels, which was ahead of the one with branches on four (`study finish`).
Taught in: notebooks/09_fabric.ipynb, "Build it".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from kdlib import losses, teachers
from kdlib.config import DistillerConfig
from kdlib.contract import Batch, Distiller, Losses, Pairs, Parameters, Phase, TrainingSet
from kdlib.layers import necks
from kdlib.layers.attention import Axis
from kdlib.layers.fabric import STEM, FabricStudent


@dataclass(frozen=True, kw_only=True)
class DBFADConfig(DistillerConfig):
    """Defaults are those of the official code but for `neck_weight`, `train_blur` and a constant rate.

    Attributes:
        strides: Levels of the pyramid; one at stride 2 is max-pooled to stride 4, as a ResNet's stem is.
        lr: Adam learning rate.
        betas: Adam's momenta.
        residuals: Branches from each level to the decoder's next; without them, the variant for unseen fabrics (DG).
        blocks: Residual blocks per decoder stage.
        attention: Softmax of all attention over the `width`, over `all` positions, or `none`.
        level_weights: Of the map's levels: `area` divides each by its positions and so favours coarse ones, or `equal`.
        neck: Block before the last attention: `sspcab`, `none` or `cram`.
        neck_weight: Weight of the neck's own losses; 0 is the code.
        gap: Of SSPCAB: positions between a corner and the hidden centre.
        detach: SSPCAB's loss teaches the block alone, not the bottleneck before it.
        train_blur: Blur training images, not test images, by a Gaussian of 0.8 pixels over 3 x 3, as the code does.
    """

    backbone: str = "resnet34"
    strides: tuple[int, ...] = (2, 4, 8, 16)
    batch_size: int = 4
    lr: float = 0.005
    betas: tuple[float, float] = (0.9, 0.999)
    residuals: bool = True
    blocks: int = 2
    attention: Axis = "width"
    level_weights: Literal["area", "equal"] = "area"
    neck: necks.Neck = "sspcab"
    neck_weight: float = 0.1
    gap: int = 1
    detach: bool = False
    train_blur: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neck_weight < 0 or self.blocks < 1:
            raise ValueError(
                f"neck_weight is {self.neck_weight}, expected 0 or more; blocks is {self.blocks}, expected 1 or more"
            )


class DBFAD(Distiller):
    """Fabric distillation in reverse. Images must be multiples of 32 pixels."""

    name = "dbfad"
    config: DBFADConfig

    def __init__(self, config: DBFADConfig | None = None) -> None:
        config = config or DBFADConfig()
        super().__init__(config)
        self.student = FabricStudent(
            self.teacher,
            self.make_neck,
            residuals=config.residuals,
            blocks=config.blocks,
            axis=config.attention,
        )

    def make_neck(self, channels: int) -> nn.Module:
        """The configured neck for embeddings of so many channels."""
        c = self.config
        settings: dict[str, Any] = {"gap": c.gap, "detach": c.detach} if c.neck == "sspcab" else {}
        return necks.neck(c.neck, channels, **settings)

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        t = self.levels(x, teacher)
        return list(zip(t, self.student(x, t)[0], strict=True))

    def levels(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The teacher's features [B, C, h, w], a level at stride 2 max-pooled to stride 4."""
        first, *others = self.teach(x, teacher)
        return [F.max_pool2d(first, 3, 2, 1) if self.teacher.strides[0] == STEM else first, *others]

    def loss(self, batch: Batch) -> Losses:
        blurred = batch.views.get("blurred")
        x = batch.image if blurred is None else blurred
        t = self.levels(x, batch.teacher if blurred is None else None)
        s, named = self.student(x, t)
        terms = losses.over_levels(
            list(zip(t, s, strict=True)), lambda t, s: self.distance(t, s).mean() / len(self.teacher.strides)
        )
        for name, term in named.items():
            terms |= {"total": terms["total"] + self.config.neck_weight * term, name: term}
        return terms

    def phases(self, images: TrainingSet) -> Iterator[Phase]:
        for phase in super().phases(images):
            yield replace(phase, view=blur if self.config.train_blur else None)

    def level_maps(self, x: Tensor) -> list[Tensor]:
        levels = super().level_maps(x)
        if self.config.level_weights == "equal":
            return levels
        finest = levels[0][0].numel()
        return [finest / level[0].numel() * level for level in levels]

    def residuals(self, x: Tensor) -> list[Tensor]:
        """Differences of unit vectors as of every method: weights of levels vanish where each is calibrated."""
        return super().residuals(x)

    def distance(self, t: Tensor, s: Tensor) -> Tensor:
        return 0.5 * losses.normalised_l2(t, s)

    def optimiser(self, parameters: Parameters) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.config.lr, betas=self.config.betas, fused=True)


def blur(image: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """The view `blurred` of an image [3, H, W]: a Gaussian of 0.8 pixels over 3 x 3 positions."""
    return {"blurred": transforms.gaussian_blur(image, [3, 3], [0.8, 0.8])}


_QUICK = DBFADConfig(backbone=teachers.DEFAULT, neighbourhood=3, steps=400, batch_size=16, gap=0)
PRESETS = {
    "mvtec": DBFADConfig(),
    "quick": _QUICK,
    "full": replace(_QUICK, residuals=False, strides=(8, 16), steps=2500, batch_size=8, schedule="cosine", clip=1.0),
}
