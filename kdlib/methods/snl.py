"""SNL: for many products at once a student copies the structure of the features, through a memory of normality.

    image --> teacher (frozen) --> t1, t2, t3 --> bottleneck --> CRAM: centres of normality --> decoder
                                    |   |   |                                                     |
                                    cosine, channels, affinities <---------- s1, s2, s3 <---------+

(``base="stpm"``: image --> student --> s1, s2, s3, and CRAM behind s3.)

Loss: ``L = sum_l [L_spatial + L_channel + L_intra + L_inter] + 0.1 L_compact``, every term with a weight, per level

    ``L_spatial``  1 - cos(t(p), s(p)) per position p, or of whole maps
    ``L_channel``  KL(P_t || P_s), P a channel's softmax over all positions
    ``L_intra``    mean (A_t - A_s)^2, A the cosines between all positions of one image
    ``L_inter``    the same between the positions of two images of the batch
    ``L_compact``  mean over CRAM's tokens and their dimensions of the squared distance to the nearest centre

Paper: Deng, Li. Structural Teacher-Student Normality Learning for Multi-Class Anomaly Detection and Localization.
    arXiv 2402.17091, 2024.
Differs from the paper: its text was not at hand, only the abstract and reviews. RECONSTRUCTED, with our confidence:
    the structural losses (high for spatial, which is RD's score, and for channel, whose form is VAND-GNL's code; medium
    for the affinities, "inter" across images because the paper uses no labels); CRAM's formula (low: only name, purpose
    and place are known, see ``layers/memory.py``); weights, number of centres and schedule (from RD4AD and ADer). The
    channel loss sums over positions, as is usual: VAND-GNL's mean is 1,024 times smaller on a map of 32 x 32.
Differs from the official code: there is none that we know of.
The ``quick`` preset differs too: EfficientNet-Lite0 teaches, its features averaged over 3 x 3 positions
    (``neighbourhood``, PatchCore's idea), hundreds of steps.
    Chosen with test results of real photographs in view.
Taught in: notebooks/06_snl.ipynb, "Build it".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR

from kdlib import backbones, losses
from kdlib.layers.memory import CRAM, Rho
from kdlib.methods.base import Distiller, Loader
from kdlib.methods.rd import RD, RDConfig
from kdlib.methods.stpm import STPM
from kdlib.types import Batch, Losses, Pairs, Phase


@dataclass(frozen=True, kw_only=True)
class SNLConfig(RDConfig):
    """RD's settings and SNL's own; a weight of 0 switches a loss off.

    Attributes:
        base: ``rd`` (reverse) or ``stpm`` (forward distillation); the latter takes of RD's settings only ``lr``,
            ``betas`` and ``loss``.
        loss: The spatial loss, ``per_position`` or ``global``.
        student_init: With ``base="stpm"``: see :class:`kdlib.methods.stpm.STPMConfig`.
        spatial: Weight of the spatial loss.
        channel: Weight of the channel loss.
        temperature: Of the channel loss; small values look at peaks.
        reduction: Of the channel loss over positions: ``cwd`` sums, ``vandgnl`` takes the mean.
        intra: Weight of the affinity loss within images.
        inter: Weight of the affinity loss between images; needs batches that mix products.
        grid: Affinities are taken on at most this many positions in height and width.
        cram: Put the memory between bottleneck and decoder.
        centres: Its centres.
        centre_init: ``normal`` (noise) or ``tokens`` (random tokens of the untrained student).
        rho: What passes beside the centres: ``residual`` (narrow network), ``zero`` or ``identity``.
        compact: Weight of the compactness loss.
        decay: Share of the steps after which the learning rate falls to a tenth; 1 never.
        balanced: Every batch shows all products equally often. The paper uses no labels, not even these.
    """

    epochs: int = 100
    loss: Literal["global", "per_position"] = "per_position"
    base: Literal["rd", "stpm"] = "rd"
    student_init: Literal["random", "pretrained"] = "random"
    spatial: float = 1.0
    channel: float = 1.0
    temperature: float = 1.0
    reduction: Literal["cwd", "vandgnl"] = "cwd"
    intra: float = 1.0
    inter: float = 1.0
    grid: int = 16
    cram: bool = True
    centres: int = 128
    centre_init: Literal["normal", "tokens"] = "normal"
    rho: Rho = "residual"
    compact: float = 0.1
    decay: float = 0.8
    balanced: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = (self.spatial, self.channel, self.intra, self.inter, self.compact)
        if min(weights) < 0 or not any(weights[:-1]) or self.temperature <= 0 or not 0 < self.decay <= 1:
            raise ValueError(
                f"spatial, channel, intra, inter and compact are {weights}, temperature {self.temperature}, decay "
                f"{self.decay}; expected weights of 0 or more, not all 0, a positive temperature, a decay in 0..1"
            )


class SNL(Distiller):
    """Structural normality learning on RD or STPM, whichever ``config.base`` names."""

    name = "snl"
    config: SNLConfig

    def __new__(cls, config: SNLConfig | None = None) -> SNL:
        forward = config is not None and config.base == "stpm"
        return super().__new__((_Forward if forward else _Reverse) if cls is SNL else cls)

    def __init__(self, config: SNLConfig | None = None) -> None:
        config = config or SNLConfig()
        super().__init__(config)
        last = self.teacher.channels[-1]
        channels = self.bottleneck.out_channels if isinstance(self, RD) else last
        memory = CRAM(channels, width=min(512, last), centres=config.centres, rho=config.rho) if config.cram else None
        self.cram = memory

    def before(self, x: Tensor, t: Sequence[Tensor]) -> list[Tensor]:
        """Student features of which the last one passes the memory."""
        raise NotImplementedError

    def after(self, features: list[Tensor]) -> list[Tensor]:
        """Student features of every level, once the last of ``features`` has passed the memory."""
        raise NotImplementedError

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        return self._pairs(x, teacher)[0]

    def loss(self, batch: Batch) -> Losses:
        c = self.config
        pairs, compactness = self._pairs(batch.image, batch.teacher)
        distances: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "spatial": losses.global_cosine if c.loss == "global" else losses.per_position_cosine,
            "channel": partial(losses.channel_kl, temperature=c.temperature, reduction=c.reduction),
            "intra": partial(losses.intra_affinity, grid=c.grid),
            "inter": partial(losses.inter_affinity, grid=c.grid),
        }
        named = {n: losses.over_levels(pairs, d)["total"] for n, d in distances.items() if getattr(c, n)}
        if compactness is not None:
            named["compact"] = compactness
        # A term and its weight in the configuration have one name.
        return {"total": torch.stack([getattr(c, n) * term for n, term in named.items()]).sum(), **named}

    def phases(self, loader: Loader) -> Iterator[Phase]:
        c = self.config
        if self.cram and c.centre_init == "tokens":
            self.cram.seed(torch.cat([self._tokens(batch) for batch in loader]))
        for phase in super().phases(loader):
            drop = partial(MultiStepLR, milestones=[round(c.decay * phase.steps)], gamma=0.1)
            yield replace(phase, scheduler=drop, balanced=c.balanced)

    def optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.config.lr, betas=self.config.betas, fused=True)

    def _pairs(self, x: Tensor, teacher: Sequence[Tensor] | None) -> tuple[Pairs, Tensor | None]:
        """The pairs, and how far the memory's tokens are from its centres."""
        t = self.teach(x, teacher)
        *others, z = self.before(x, t)
        z, compactness = self.cram(z) if self.cram else (z, None)
        return list(zip(t, self.after([*others, z]), strict=True)), compactness

    @torch.no_grad()
    def _tokens(self, batch: Batch) -> Tensor:
        """As many random tokens [N, D] of a batch as there are centres, at most."""
        assert self.cram is not None
        t = [f.float() for f in self.teach(batch.image, batch.teacher)]
        tokens = self.cram.tokens(self.before(batch.image, t)[-1]).flatten(0, 1)
        return tokens[torch.randperm(len(tokens), device=tokens.device)[: self.config.centres]]


class _Reverse(SNL, RD):
    config: SNLConfig

    def before(self, x: Tensor, t: Sequence[Tensor]) -> list[Tensor]:
        self._check_size(x)
        return [self.bottleneck(t)]

    def after(self, features: list[Tensor]) -> list[Tensor]:
        return self.decoder(features[-1])


class _Forward(SNL, STPM):  # type: ignore[misc]  # SNLConfig has what STPM asks for, but is no STPMConfig
    def before(self, x: Tensor, t: Sequence[Tensor]) -> list[Tensor]:
        return self.student(x)

    def after(self, features: list[Tensor]) -> list[Tensor]:
        return features


PRESETS = {
    "mvtec": SNLConfig(),
    "quick": SNLConfig(backbone=backbones.DEFAULT, neighbourhood=3, steps=400),
}
