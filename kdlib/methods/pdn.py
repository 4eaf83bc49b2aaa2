"""PDN: a deep network's features, distilled into a small one that sees patches of 33 pixels, to be a teacher itself.

    image --> timm teacher (frozen) --> levels, on one grid, pooled to K channels, standardised --> target
          --> half size --> PDN, padded ----------------------------------------------------------> |target - PDN|^2

Loss: `L = mean_{b,c,p} (target - PDN(x))^2`, the mean of that over the batch and that over auxiliary images.

Its product is a file of weights, `weights.safetensors` beside the saved model, which any method takes:
`weights="FILE"` with `backbone="pdn_small_quarter"`, or whatever architecture and width it was distilled into. As a
detector of its own it is a student that was never kept away from what is not normal; it finds little where it was
distilled with many other images.

Paper: Batzner, Heckler, König. EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies. WACV
    2024, arXiv 2303.14535, the part on the teacher.
Differs from the paper: images of the user's choice, products and auxiliary ones, instead of ImageNet's; no random
    greyscale (a share of the auxiliary images has no colour); every feature of the target is the mean over 3 x 3
    positions, where PatchCore's code cuts that patch into as many numbers as it has channels; channels of all levels
    are pooled together, so that wide levels have a larger part of the target (there: each level the same).
Differs from the official code: there is none. Against that which most use, nelson1425/EfficientAD: the target's mean
    and spread per channel are those of the products alone, not of auxiliary images too; both kinds of images weigh the
    same, however many there are.
The `quick` preset differs further: EfficientNet-Lite0 teaches, a quarter of the width, hundreds of steps at a higher
    rate from larger weights, images at one size for both networks.
The `full` preset, for images of 512 px, made `data/teachers/pdn_small_quarter.safetensors`; the card beside it says
    how. It takes two minutes on a GPU, and an hour or two on two cores.
Taught in: notebooks/08_efficientad.ipynb, "Build it".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlib import losses, teachers
from kdlib.config import DistillerConfig
from kdlib.contract import Batch, Distiller, Losses, Pairs, Parameters, Phase, TrainingSet
from kdlib.layers.standardise import Standardise
from kdlib.layers.starts import Start, start


@dataclass(frozen=True, kw_only=True)
class PDNConfig(DistillerConfig):
    """Defaults are the paper's, but for what the module names.

    Attributes:
        architecture: `small` or `medium`.
        width: Channels of PDN as a share of the paper's: 1, 0.5, 0.25 or 0.125.
        shrink: How many times smaller PDN sees an image than its teacher does.
        auxiliary: Auxiliary images per image of the batch.
        start: Weights that PDN starts with, see `kdlib.layers.starts`.
        lr: Adam learning rate.
        weight_decay: Adam's weight decay.
    """

    backbone: str = "wide_resnet101_2"
    strides: tuple[int, ...] = (8, 16)
    neighbourhood: int = 3
    steps: int | None = 60_000
    architecture: teachers.Architecture = "small"
    width: float = 1.0
    shrink: int = 2
    auxiliary: float = 1.0
    start: Start = "pytorch"
    lr: float = 1e-4
    weight_decay: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        teachers.patch_name(self.architecture, self.width)
        if self.shrink < 1 or self.auxiliary < 0:
            raise ValueError(
                f"shrink is {self.shrink}, expected 1 or more; auxiliary is {self.auxiliary}, expected 0 or more"
            )


class PDN(Distiller):
    """Distils a pyramid of features into a patch description network, its `student`."""

    name = "pdn"
    product = "student"
    whitens = False  # the target has other channels than the teacher
    config: PDNConfig

    def __init__(self, config: PDNConfig | None = None) -> None:
        c = config or PDNConfig()
        super().__init__(c)
        channels = round(c.width * 384)
        self.normalise = teachers.normalise()
        self.student = teachers.PDN(c.architecture, c.width, channels, padding=True)
        self.target_scale = Standardise([channels])
        start(self.student, c.start)

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        c = self.config
        small = F.interpolate(x, scale_factor=1 / c.shrink, mode="bilinear", antialias=True) if c.shrink > 1 else x
        s = self.student(self.normalise(small))
        target = self._target(self.teach(x, teacher), s.shape[-2:])
        return [(self.target_scale([target])[0], s)]

    def loss(self, batch: Batch) -> Losses:
        images = [(batch.image, batch.teacher)] + ([(batch.auxiliary, None)] if batch.auxiliary is not None else [])
        terms = [losses.hard_features(t, s, 0) for x, features in images for t, s in self.pairs(x, features)]
        return {"total": torch.stack(terms).mean()}

    def distance(self, t: Tensor, s: Tensor) -> Tensor:
        return (t - s).square().mean(1)

    def phases(self, images: TrainingSet) -> Iterator[Phase]:
        grid = 4 * self.config.shrink
        self.target_scale.fit(
            [self._target(self.teach(b.image, b.teacher), [n // grid for n in b.image.shape[-2:]])] for b in images
        )
        for phase in super().phases(images):
            yield replace(phase, auxiliary=ceil(self.config.auxiliary * phase.batch_size))

    def optimiser(self, parameters: Parameters) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True)

    def _target(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """All levels [B, C, h, w] at one size, side by side, and averaged over channels until there are K of them."""
        levels = [F.interpolate(f, size=tuple(size), mode="bilinear", align_corners=False) for f in features]
        stacked = torch.cat(levels, dim=1).movedim(1, -1)
        pooled = F.adaptive_avg_pool1d(stacked.flatten(1, 2), self.student.channels)
        return pooled.unflatten(1, stacked.shape[1:3]).movedim(-1, 1)


_QUICK = PDNConfig(
    backbone=teachers.DEFAULT,
    strides=(4, 8),
    steps=150,
    batch_size=4,
    width=0.25,
    shrink=1,
    auxiliary=0.5,
    lr=2e-3,
    start="he",
)
PRESETS = {
    "mvtec": PDNConfig(),
    "quick": _QUICK,
    "full": replace(_QUICK, strides=(8, 16), shrink=2, auxiliary=1.0, steps=1500, batch_size=16, schedule="cosine"),
}
