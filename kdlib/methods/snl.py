"""SNL: for many products at once a student copies the structure of the features, through a memory of normality.

    image --> teacher (frozen) --> t1, t2, t3 --> bottleneck --> CRAM: centres of normality --> decoder
                                    |   |   |                                                     |
                                    cosine, channels, affinities <---------- s1, s2, s3 <---------+

(`base="stpm"`: image --> student --> s1, s2, s3, and CRAM behind s3.)

Loss: `L = sum_l [L_spatial + L_channel + L_intra + L_inter] + 0.1 L_compact`, every term with a weight, per level

    `L_spatial`  1 - cos(t(p), s(p)) per position p, or of whole maps
    `L_channel`  KL(P_t || P_s), P a channel's softmax over all positions
    `L_intra`    mean (A_t - A_s)^2, A the cosines between all positions of one image
    `L_inter`    the same between the positions of two images of the batch
    `L_compact`  mean over CRAM's tokens and their dimensions of the squared distance to the nearest centre

Paper: Deng, Li. Structural Teacher-Student Normality Learning for Multi-Class Anomaly Detection and Localization.
    arXiv 2402.17091, 2024.
Differs from the paper: its text was not at hand, only the abstract and reviews. RECONSTRUCTED, with our confidence:
    the structural losses (high for spatial, which is RD's score, and for channel, whose form is VAND-GNL's code; medium
    for the affinities, "inter" across images because the paper uses no labels); CRAM's formula (low: only name, purpose
    and place are known, see `layers/memory.py`); weights, number of centres and schedule (from RD4AD and ADer). The
    channel loss sums over positions, as is usual: VAND-GNL's mean is 1,024 times smaller on a map of 32 x 32.
Differs from the official code: there is none that we know of.
The `quick` preset differs too: EfficientNet-Lite0 teaches, its features averaged over 3 x 3 positions
    (`neighbourhood`, PatchCore's idea), hundreds of steps.
    Chosen with test results of real photographs in view.
The `full` preset takes over what `rd/full` has, without a trial of its own.
Taught in: notebooks/06_snl.ipynb, "Build it".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.lr_scheduler import MultiStepLR

from kdlib import losses, teachers
from kdlib.contract import Batch, Distiller, Losses, Pairs, Parameters, Phase, TrainingSet
from kdlib.layers import necks
from kdlib.layers.memory import CRAM, Rho
from kdlib.layers.students import ForwardStudent, ReverseStudent
from kdlib.methods.rd import RDConfig, mined, reverse_student


@dataclass(frozen=True, kw_only=True)
class SNLConfig(RDConfig):
    """RD's settings and SNL's own; a weight of 0 switches a loss off.

    Attributes:
        base: `rd` (reverse) or `stpm` (forward distillation); the latter takes of RD's settings only `lr`,
            `betas` and `loss`.
        loss: The spatial loss, `per_position` or `global`.
        student_init: With `base="stpm"`: see `kdlib.methods.stpm.STPMConfig`.
        neck: `cram`, the memory between bottleneck and decoder, `sspcab`, see `rd`, or `none`.
        neck_weight: Weight of the neck's own loss, the memory's compactness.
        spatial: Weight of the spatial loss.
        channel: Weight of the channel loss.
        temperature: Of the channel loss; small values look at peaks.
        reduction: Of the channel loss over positions: `cwd` sums, `vandgnl` takes the mean.
        intra: Weight of the affinity loss within images.
        inter: Weight of the affinity loss between images; needs batches that mix products.
        grid: Affinities are taken on at most this many positions in height and width.
        centres: Centres of the memory.
        centre_init: `normal` (noise) or `tokens` (random tokens of the untrained student).
        rho: What passes beside the centres: `residual` (narrow network), `zero` or `identity`.
        decay: Share of the steps after which the learning rate falls to a tenth, 1 never; where `schedule` is constant.
        balanced: Every batch shows all products equally often. The paper uses no labels, not even these.
    """

    epochs: int = 100
    loss: Literal["global", "per_position"] = "per_position"
    base: Literal["rd", "stpm"] = "rd"
    student_init: Literal["random", "pretrained"] = "random"
    neck: necks.Neck = "cram"
    spatial: float = 1.0
    channel: float = 1.0
    temperature: float = 1.0
    reduction: Literal["cwd", "vandgnl"] = "cwd"
    intra: float = 1.0
    inter: float = 1.0
    grid: int = 16
    centres: int = 128
    centre_init: Literal["normal", "tokens"] = "normal"
    rho: Rho = "residual"
    decay: float = 0.8
    balanced: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = (self.spatial, self.channel, self.intra, self.inter)
        if min(*weights, self.neck_weight) < 0 or not any(weights):
            raise ValueError(
                f"spatial, channel, intra and inter are {weights}, neck_weight {self.neck_weight}; expected weights "
                "of 0 or more, the first four not all 0"
            )
        if self.temperature <= 0 or not 0 < self.decay <= 1 or min(self.grid, self.centres) < 1:
            raise ValueError(
                f"temperature is {self.temperature}, decay {self.decay}, grid {self.grid}, centres {self.centres}; "
                "expected a positive temperature, a decay in 0..1, and counts of 1 or more"
            )


class SNL(Distiller):
    """Structural normality learning: RD's or STPM's student with a memory, and four losses of structure."""

    name = "snl"
    config: SNLConfig

    def __init__(self, config: SNLConfig | None = None) -> None:
        config = config or SNLConfig()
        super().__init__(config)
        settings: dict[str, Any] = {}
        if config.neck == "cram":
            width = min(512, self.teacher.channels[-1])
            settings = {"width": width, "centres": config.centres, "rho": config.rho}
        neck = partial(necks.neck, config.neck, **settings)
        self.student: ReverseStudent | ForwardStudent
        if config.base == "rd":
            self.student = reverse_student(self.teacher, config, neck)
        else:
            self.student = ForwardStudent(teachers.student_like(self.teacher, config.student_init), neck)

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        t = self.teach(x, teacher)
        return list(zip(t, self.student(x, t)[0], strict=True))

    def loss(self, batch: Batch) -> Losses:
        c = self.config
        t = self.teach(batch.image, batch.teacher)
        s, terms = self.student(batch.image, t)
        pairs = list(zip(t, s, strict=True))
        distances: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "spatial": losses.global_cosine if c.loss == "global" else losses.per_position_cosine,
            "channel": partial(losses.channel_kl, temperature=c.temperature, reduction=c.reduction),
            "intra": partial(losses.intra_affinity, grid=c.grid),
            "inter": partial(losses.inter_affinity, grid=c.grid),
        }
        weights = {name: getattr(c, name) for name in distances}  # a term and its weight have one name
        compared = dict.fromkeys(distances, pairs) | {"spatial": mined(pairs, c, batch.progress)}
        used = {
            name: losses.over_levels(compared[name], distances[name])["total"] for name in distances if weights[name]
        }
        weighted = [weights[name] * term for name, term in used.items()]
        weighted += [c.neck_weight * term for term in terms.values()]
        return {"total": torch.stack(weighted).sum(), **used, **terms}

    def phases(self, images: TrainingSet) -> Iterator[Phase]:
        c = self.config
        memory = self.student.neck
        if isinstance(memory, CRAM) and c.centre_init == "tokens":
            memory.seed(torch.cat([self._tokens(memory, batch) for batch in images]))
        for phase in super().phases(images):
            drop = partial(MultiStepLR, milestones=[round(c.decay * phase.steps)], gamma=0.1)
            yield replace(phase, scheduler=phase.scheduler or drop, balanced=c.balanced)

    def optimiser(self, parameters: Parameters) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.config.lr, betas=self.config.betas, fused=True)

    @torch.no_grad()
    def _tokens(self, memory: CRAM, batch: Batch) -> Tensor:
        """As many random tokens [N, D] of a batch as there are centres, at most."""
        t = [f.float() for f in self.teach(batch.image, batch.teacher)]
        tokens = memory.tokens(self.student.embed(batch.image, t)).flatten(0, 1)
        return tokens[torch.randperm(len(tokens), device=tokens.device)[: self.config.centres]]


_QUICK = SNLConfig(backbone=teachers.DEFAULT, neighbourhood=3, steps=400)
PRESETS = {
    "mvtec": SNLConfig(),
    "quick": _QUICK,
    "full": replace(_QUICK, strides=(8, 16), steps=1600, batch_size=8, schedule="cosine", clip=1.0),
}
