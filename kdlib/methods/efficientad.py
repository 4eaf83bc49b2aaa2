"""EfficientAD: a student imitates a small teacher and fails at strange parts, an autoencoder at strange arrangements.

    image --> PDN teacher (frozen), standardised --> t [K] -- (t - s1)^2 ---> quantiles --+
          --> PDN student ------------> s1 [K], s2 [K]                                    +--> sum
          --> autoencoder, one vector --> a [K] ------------- (a - s2)^2 ---> quantiles --+

Loss: `L = L_hard + L_penalty + L_autoencoder + L_imitation`, x' the image with other colours, o an auxiliary image

    `L_hard`         mean of those (t(x) - s1(x))^2 that are at least the 0.999-quantile of all channels and positions
    `L_penalty`      mean s1(o)^2: what is not the product must not be imitated
    `L_autoencoder`  mean (t(x') - a(x'))^2
    `L_imitation`    mean (a(x') - s2(x'))^2

Paper: Batzner, Heckler, König. EfficientAD: Accurate Visual Anomaly Detection at Millisecond-Level Latencies. WACV
    2024, arXiv 2303.14535.
Differs from the paper: in a batch of several images each has its own quantile (`over="batch"` is one for all; the
    paper's batch is one image); auxiliary images are what `fit(auxiliary=...)` gives, rendered textures by default, not
    ImageNet's, neither cropped nor made grey at random; images of any multiple of 32 pixels from 64 on; where the
    teacher is a timm network, its one level is imitated by a padded PDN averaged onto the same positions, and maps have
    no rim; its teacher is not part of kdlib (give `weights`, or distil one: `pdn`). Quantiles are of images given by
    `fit(held_out=...)`, in a `run` of training images. Whether the gradient of the imitation reaches the autoencoder,
    as in public code, is UNVERIFIED (`detach=True`: no).
Differs from the official code: there is none. Against nelson1425/EfficientAD: the penalty is on (there off by default),
    statistics and quantiles are saved with the model.
The `quick` preset differs further: a quarter of the width, half for the autoencoder, hundreds of steps at a higher,
    falling rate from larger weights, clipped gradients, a blurred map whose rim continues its edge.
The `full` preset is `quick` with thousands of steps, for one product at 256 px: one vector holds the layout of one.
Taught in: notebooks/08_efficientad.ipynb, "Build it".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import MultiStepLR

from kdlib import losses, teachers
from kdlib.config import DistillerConfig
from kdlib.contract import Batch, Distiller, Losses, Pairs, Parameters, Phase, TrainingSet
from kdlib.layers.autoencoder import AutoEncoder
from kdlib.layers.standardise import Standardise
from kdlib.layers.starts import Start, start
from kdlib.schedules import Schedule
from kdlib.synthesis.shifts import recoloured

RIM = 4  # positions that a PDN without padding leaves out on each side
_UNIT = 0.1  # what a pixel at the upper quantile gets


@dataclass(frozen=True, kw_only=True)
class EfficientADConfig(DistillerConfig):
    """Defaults are the paper's for EfficientAD-S; `backbone="pdn_medium", architecture="medium"` is EfficientAD-M.

    Attributes:
        backbone: A PDN (see `kdlib.teachers.patches`), or a timm network of which `strides` names one level.
        steps: Optimiser steps.
        lr: Adam learning rate; falls to a tenth after `decay` of the steps, where `schedule` is constant.
        weight_decay: Adam's weight decay.
        decay: Share of the steps at the first rate; 1: all.
        architecture: Of the student, `small` or `medium`.
        width: Channels of the student's layers, as a share of the paper's.
        autoencoder_width: Channels of the autoencoder's layers, as a share of the paper's.
        dropout: Share of the values in the autoencoder's decoder that training leaves out, in [0, 1).
        start: Weights that student and autoencoder start with, see `kdlib.layers.starts`.
        hard: Quantile of the differences from which on they count, in [0, 1); 0: the mean of all.
        over: Whether each `image` has its quantile, or the `batch`.
        penalty: Weight of the penalty on auxiliary images; 0 needs none of them.
        imitation: Weight of both losses of the autoencoder.
        detach: Keep the gradient of the imitation away from the autoencoder.
        jitter: Brightness, contrast or saturation of the autoencoder's images vary by this share.
        quantiles: Of normal maps, brought to 0 and 0.1; `none` leaves maps as they are.
        mix: Share of the autoencoder's map in the sum; 0 and 1 leave the other out, also of normal and whitened maps.
    """

    backbone: str = "pdn_small"
    strides: tuple[int, ...] = (4,)
    steps: int | None = 70_000
    batch_size: int = 1
    blur: float = 0.0
    lr: float = 1e-4
    weight_decay: float = 1e-5
    decay: float = 0.95
    architecture: teachers.Architecture = "small"
    width: float = 1.0
    autoencoder_width: float = 1.0
    dropout: float = 0.2
    start: Start = "pytorch"
    hard: float = 0.999
    over: Literal["image", "batch"] = "image"
    penalty: float = 1.0
    imitation: float = 1.0
    detach: bool = False
    jitter: float = 0.2
    quantiles: tuple[float, float] | None = (0.9, 0.995)
    mix: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.quantiles or (0.0, 1.0)
        ranges = {
            "strides": (len(self.teacher_blocks or self.strides) == 1, "one level, such as (4,) or (8,)"),
            "fusion": (self.fusion in ("sum", "mean"), "sum or mean, as calibrated maps go below 0"),
            "quantiles": (0 <= low < high <= 1, "two shares in rising order, like (0.9, 0.995), or none"),
            "mix": (0 <= self.mix <= 1, "a share in [0, 1]"),
            "decay": (0 < self.decay <= 1, "a share in (0, 1]"),
            **{n: (0 <= getattr(self, n) < 1, "a share in [0, 1)") for n in ("hard", "jitter", "dropout")},
            **{n: (getattr(self, n) >= 0, "0 or more") for n in ("penalty", "imitation")},
            **{n: (getattr(self, n) > 0, "more than 0") for n in ("width", "autoencoder_width")},
        }
        for name, (fits, expected) in ranges.items():
            if not fits:
                raise ValueError(f"efficientad: {name} is {getattr(self, name)}; expected {expected}")


class EfficientAD(Distiller):
    """Student, autoencoder, and the calibration of their maps. Images must be multiples of 32 pixels, from 64 on."""

    name = "efficientad"
    config: EfficientADConfig
    quantiles: Tensor

    def __init__(self, config: EfficientADConfig | None = None) -> None:
        c = config or EfficientADConfig()
        super().__init__(c)
        (self.channels,) = self.teacher.channels
        self.rim = RIM if isinstance(self.teacher, teachers.PatchTeacher) else 0
        self.normalise = teachers.normalise()
        self.scale = Standardise(self.teacher.channels)
        self.student = teachers.PDN(c.architecture, c.width, 2 * self.channels, padding=not self.rim)
        self.autoencoder = AutoEncoder(self.channels, c.autoencoder_width, c.dropout)
        for network in (self.student, self.autoencoder):
            start(network, c.start)
        self.register_buffer("quantiles", torch.tensor([[0.0, 1.0]] * 2))

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        t = self.taught(x, teacher)
        s1, s2 = self.imitated(x, t)
        return [(t, s1), (self.rebuilt(x, t).detach(), s2)]

    def taught(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Tensor:
        """The teacher's features [B, K, h, w], standardised per channel."""
        return self.scale(self.teach(x, teacher))[0]

    def imitated(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The student's guesses of the teacher and of the autoencoder, each like `t` [B, K, h, w]."""
        s = self.student(self.normalise(x)).float()
        if s.shape[-2:] != t.shape[-2:]:
            s = F.adaptive_avg_pool2d(s, (t.shape[-2], t.shape[-1]))
        return s[:, : self.channels], s[:, self.channels :]

    def rebuilt(self, x: Tensor, t: Tensor) -> Tensor:
        """The autoencoder's guess of the teacher, like `t` [B, K, h, w]."""
        return self.autoencoder(self.normalise(x), t.shape[-2:]).float()

    def loss(self, batch: Batch) -> Losses:
        c, x, view = self.config, batch.image, batch.views.get("recoloured", batch.image)
        recoloured, t, n = self.taught(view), self.taught(x, batch.teacher), len(x)
        other = batch.auxiliary if c.penalty and batch.auxiliary is not None else x[:0]
        s1, s2 = self.imitated(torch.cat([view, other, x]), t)
        a = self.rebuilt(view, t)
        terms = {
            "hard": losses.hard_features(t, s1[-n:], c.hard, over=c.over),
            "autoencoder": c.imitation * F.mse_loss(a, recoloured),
            "imitation": c.imitation * F.mse_loss(s2[:n], a.detach() if c.detach else a),
        }
        if len(other):
            terms["penalty"] = c.penalty * s1[n : n + len(other)].square().mean()
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def phases(self, images: TrainingSet) -> Iterator[Phase]:
        c = self.config
        self.scale.fit(self.teach(batch.image, batch.teacher) for batch in images)
        for phase in super().phases(images):
            auxiliary = phase.batch_size if c.penalty else 0
            yield replace(phase, view=partial(recoloured, by=c.jitter), auxiliary=auxiliary)
        if c.quantiles is None:
            return
        self.eval()
        with torch.no_grad():
            maps = zip(*(self.distances(batch.image, batch.teacher) for batch in images.held_out), strict=True)
            rows = [np.quantile(torch.cat(level).cpu().numpy(), c.quantiles) for level in maps]
        self.quantiles.copy_(torch.tensor(np.stack(rows)))

    def distances(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> list[Tensor]:
        """Student's and autoencoder's map [B, 1, h, w] as they are, without a rim."""
        return [self.distance(t, s)[:, None] for t, s in self.pairs(x, teacher)]

    def distance(self, t: Tensor, s: Tensor) -> Tensor:
        return (t - s).square().mean(1)

    def level_maps(self, x: Tensor) -> list[Tensor]:
        """Both maps, calibrated and weighted, with the rim of which PDN says nothing."""
        return [self._with_rim(share * amap) for share, amap in self._weighed(self.calibrated(x))]

    def calibrated(self, x: Tensor) -> list[Tensor]:
        """`distances`, with the lower quantile at 0 and the upper one at 0.1, or as they are without quantiles."""
        ends = self.quantiles if self.config.quantiles else [(0.0, _UNIT)] * 2
        return [_UNIT * (m - low) / (high - low) for m, (low, high) in zip(self.distances(x), ends, strict=True)]

    def residuals(self, x: Tensor) -> list[Tensor]:
        return [self._with_rim(t - s, "replicate") for _, (t, s) in self._weighed(self.pairs(x))]

    def _weighed(self, levels: Sequence[Any]) -> list[tuple[float, Any]]:
        """What belongs to the student and to the autoencoder, with its share in the map; without what has none."""
        shares = (1 - self.config.mix, self.config.mix)
        return [pair for pair in zip(shares, levels, strict=True) if pair[0]]

    def optimiser(self, parameters: Parameters) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True)

    def schedule(self, steps: int) -> Schedule | None:
        fall = round(self.config.decay * steps)
        return super().schedule(steps) or partial(MultiStepLR, milestones=[fall], gamma=0.1)

    def _with_rim(self, amap: Tensor, mode: str = "") -> Tensor:
        """Zeros around, as published; the edge where maps are blurred, as most of a calibrated map lies below 0."""
        return F.pad(amap, (self.rim,) * 4, mode=mode or ("replicate" if self.config.blur else "constant"))


_QUICK = EfficientADConfig(
    backbone="pdn_small_quarter",
    width=0.25,
    autoencoder_width=0.5,
    start="he",
    steps=500,
    lr=1e-3,
    schedule="cosine",
    clip=1.0,
    blur=4.0,
)
PRESETS = {"mvtec": EfficientADConfig(), "quick": _QUICK, "full": replace(_QUICK, steps=5000)}
