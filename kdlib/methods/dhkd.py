"""DHKD: a flow that learned the likelihood of normal features teaches a plain network that must also remove noise.

    image --> backbone (frozen) --> f1, f2, f3 --+--> flow per level (the teacher) ----> z_T --+
                                                 |                                             +--> |z_T - z_S|^2
                                                 +--> + noise --> denoiser per level --> z_S --+
                                               (training)    (spatial + frequency)

Loss: first the flow's, `L = sum_l mean_{b,p} (||z||^2 / 2 - log|det J|) / C`; then, with the flow frozen, the
    student's, `L = sum_l mean (z_T - z_S)^2 + affinity * mean (A_T - A_S)^2`, A = cosines between positions.

Paper: Unsupervised Image Anomaly Detection with Denoised Heterogeneous Networks via Knowledge Distillation (DHKD).
Differs from the paper: its text was not found and its repository holds no code, so that nearly all of this is a
    RECONSTRUCTION from the abstract. Stated there: a flow as teacher, a feed-forward student, noise on features, a
    dual-domain module, an affinity loss. Reconstructed: backbone and standardised levels (all related flows work on
    pretrained features and need their scale); flow, learning rate and epochs (those of AST, the nearest published
    relative, Rudolph et al., WACV 2023); the student's width; strength and place of the noise (the range of relatives;
    on a random rectangle every second time, as defects are local); the frequency branch (Res FFT-Conv's, for a view of
    the whole image); the affinity's form (structured distillation's) and weight; clipped gradients (CS-Flow's); level
    maps standardised on held-out normal images where `fit` is given any, else on training images, since levels differ
    in scale.
Differs from the official code: none is published. Against AST's: three levels instead of one, no foreground mask, no
    clamp of outputs to 1e6, which bounded scales make needless.
The `quick` preset differs further: EfficientNet-Lite0, its features averaged over 3 x 3 positions
    (`neighbourhood`); smaller kernels and hundreds of steps, as a flow soon learns a few dozen images by
    heart.
The `full` preset is `quick` with a falling rate and four times the steps.
Taught in: notebooks/05_dhkd.ipynb, "Build it".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import losses, teachers
from kdlib.config import DistillerConfig
from kdlib.contract import Batch, Distiller, Losses, Pairs, Parameters, Phase, TrainingSet
from kdlib.layers.flow import ConvFlow, Coupling, negative_log_likelihood, positions
from kdlib.layers.noise import with_noise
from kdlib.layers.spectral import DualDomain, Frequency
from kdlib.layers.standardise import Standardise

_KINDS = ("distance", "likelihood")


@dataclass(frozen=True, kw_only=True)
class DHKDConfig(DistillerConfig):
    """Defaults are AST's where it has them; all are reconstructed.

    Attributes:
        lr: Adam learning rate of both phases, constant.
        weight_decay: Adam's weight decay.
        clip: Largest norm of the gradient; `None` leaves it alone.
        teacher_steps: Steps of the flow's phase as a multiple of the student's.
        kernels: Kernels of the flow's subnets, one coupling block each.
        hidden: Channels of the flow's subnets.
        clamp: Bound of a log-scale in one coupling.
        position: Channels of the position's encoding, for flow and student, a multiple of 4; 0 leaves it out.
        coupling: `double` (AST) or `single` (FastFlow).
        student: `feedforward`, or a second `flow`, the symmetric variant.
        width: Largest number of channels of the student; no level has more than its features.
        blocks: Dual-domain modules of the student at each level.
        frequency: Their frequency branch: `convolve`, `gate` or `none`.
        noise: Noise added in training, up to this many standard deviations of a feature.
        affinity: Weight of the affinity loss.
        score: Map of teacher-student `distance`, of the teacher's own `likelihood`, or the sum of `both`.
        pool_first: Average the first level over 2 x 2 positions, at a quarter of its price.
    """

    backbone: str = "wide_resnet50_2"
    epochs: int = 72
    batch_size: int = 8
    lr: float = 2e-4
    weight_decay: float = 1e-5
    clip: float | None = 1.0
    teacher_steps: float = 1.0
    kernels: tuple[int, ...] = (3, 3, 3, 5)
    hidden: int = 64
    clamp: float = 1.9
    position: int = 32
    coupling: Coupling = "double"
    student: Literal["feedforward", "flow"] = "feedforward"
    width: int = 512
    blocks: int = 4
    frequency: Frequency = "convolve"
    noise: float = 0.5
    affinity: float = 1.0
    score: Literal["distance", "likelihood", "both"] = "distance"
    pool_first: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fusion == "product":
            raise ValueError("dhkd: fusion is 'product'; standardised maps are negative, expected sum, mean or max")
        if min(self.noise, self.affinity) < 0 or min(self.teacher_steps, self.width, self.blocks) <= 0:
            raise ValueError(
                f"dhkd: noise is {self.noise}, affinity {self.affinity}; expected 0 or more; teacher_steps is "
                f"{self.teacher_steps}, width {self.width}, blocks {self.blocks}; expected more than 0"
            )


class Denoiser(nn.Module):
    """The student at one level: a feed-forward network that cannot be inverted.

    Args:
        channels: Channels of the level.
        config: The method's settings.
    """

    def __init__(self, channels: int, config: DHKDConfig) -> None:
        super().__init__()
        self.position, width = config.position, min(config.width, channels)
        self.net = nn.Sequential(
            nn.Conv2d(channels + config.position, width, 3, padding=1),
            nn.LeakyReLU(inplace=True),
            *(DualDomain(width, config.frequency) for _ in range(config.blocks)),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, f: Tensor) -> Tensor:
        """Guess of the teacher's latents [B, C, h, w] from standardised features [B, C, h, w]."""
        return self.net(torch.cat([f, positions(f, self.position)], dim=1)).float()


class FlowStudent(ConvFlow):
    """The student of the symmetric variant: one more flow, of which only the latents are wanted."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[0]


class DHKD(Distiller):
    """Denoising heterogeneous distillation. `teacher` is the backbone; the flows on top of it do the teaching."""

    name = "dhkd"
    recommended: ClassVar[str] = "normal"  # ahead of whitened maps in image AUROC on the tuning images (`study finish`)
    config: DHKDConfig

    def __init__(self, config: DHKDConfig | None = None) -> None:
        c = config or DHKDConfig()
        super().__init__(c)
        channels = self.teacher.channels
        flow: dict[str, Any] = {"kernels": c.kernels, "hidden": c.hidden, "clamp": c.clamp}
        flow |= {"position": c.position, "coupling": c.coupling}
        self.features_scale = Standardise(channels)
        self.flows = nn.ModuleList(ConvFlow(n, **flow) for n in channels)
        symmetric = c.student == "flow"
        self.students = nn.ModuleList(FlowStudent(n, **flow) if symmetric else Denoiser(n, c) for n in channels)
        self.maps_scale = Standardise([1] * len(_KINDS) * len(channels))

    @property
    def whitens(self) -> bool:  # type: ignore[override]
        return self.config.score == "distance"

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        features = self.features(x, teacher)
        return self.compare(features, features)

    def features(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> list[Tensor]:
        """The backbone's features per level [B, C, h, w], standardised per channel."""
        return self.features_scale(self._levels(x, teacher))

    @torch.no_grad()
    def latents(self, features: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """The flows' latents [B, C, h, w] and log-determinants [B, h, w] per level; no gradient reaches the flows."""
        return [flow(f) for flow, f in zip(self.flows, features, strict=True)]

    def compare(self, clean: Sequence[Tensor], seen: Sequence[Tensor]) -> Pairs:
        """Teacher's and student's latents of standardised features: the teacher's of clean ones, always."""
        latents = zip(self.latents(clean), self.students, seen, strict=True)
        return [(z, student(f)) for (z, _), student, f in latents]

    def loss(self, batch: Batch) -> Losses:
        clean = self.features(batch.image, batch.teacher)
        pairs = self.compare(clean, with_noise(clean, self.config.noise) if self.training else clean)
        distance = losses.over_levels(pairs, F.mse_loss)["total"]
        affinity = losses.over_levels(pairs, losses.intra_affinity)["total"]
        return {"total": distance + self.config.affinity * affinity, "distance": distance, "affinity": affinity}

    def likelihood_loss(self, batch: Batch) -> Losses:
        """The flows' loss in the first phase: negative log-likelihood per channel, without its constant."""
        features = self.features(batch.image, batch.teacher)
        latents = [flow(f) for flow, f in zip(self.flows, features, strict=True)]
        return losses.over_levels(latents, lambda z, log_det: negative_log_likelihood(z, log_det).mean())

    def phases(self, images: TrainingSet) -> Iterator[Phase]:
        self.features_scale.fit(self._levels(b.image, b.teacher) for b in images)
        student = replace(next(super().phases(images)), name="student")
        steps = max(1, round(self.config.teacher_steps * student.steps))
        yield replace(
            student,
            name="flow teacher",
            parameters=_trainable(self.flows),
            loss=self.likelihood_loss,
            steps=steps,
            scheduler=self.schedule(steps),
        )
        yield student
        self.eval()
        with torch.no_grad():
            self.maps_scale.fit(self._raw_maps(b.image, b.teacher) for b in images.held_out)

    def score_maps(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> dict[str, list[Tensor]]:
        """Maps [B, 1, h, w] per level of `distance` and `likelihood`, standardised on the training images."""
        scaled = iter(self.maps_scale(self._raw_maps(x, teacher)))
        return {kind: [next(scaled) for _ in self.flows] for kind in _KINDS}

    def level_maps(self, x: Tensor) -> list[Tensor]:
        kinds = self.score_maps(x)
        chosen = kinds if self.config.score == "both" else [self.config.score]
        return [level for kind in chosen for level in kinds[kind]]

    def residuals(self, x: Tensor) -> list[Tensor]:
        return [z - s for z, s in self.pairs(x)]

    def optimiser(self, parameters: Parameters) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True)

    def student_parameters(self) -> list[nn.Parameter]:
        return _trainable(self.students)

    def _levels(self, x: Tensor, teacher: Sequence[Tensor] | None) -> list[Tensor]:
        first, *others = self.teach(x, teacher)
        return [F.avg_pool2d(first, 2, ceil_mode=True) if self.config.pool_first else first, *others]

    def _raw_maps(self, x: Tensor, teacher: Sequence[Tensor] | None) -> list[Tensor]:
        """Maps [B, 1, h, w]: the distances of all levels, then their likelihoods."""
        features = self.features(x, teacher)
        latents = self.latents(features)
        seen = zip(latents, self.students, features, strict=True)
        distances = [(z - student(f)).pow(2).mean(1, keepdim=True) for (z, _), student, f in seen]
        return distances + [negative_log_likelihood(*latent)[:, None] for latent in latents]


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    """Parameters that can take a gradient; some libraries keep whole numbers as parameters."""
    return [p for p in module.parameters() if p.is_floating_point()]


_QUICK = DHKDConfig(
    backbone=teachers.DEFAULT, neighbourhood=3, steps=100, lr=3e-3, kernels=(1, 1, 1, 1), pool_first=True
)
PRESETS = {"mvtec": DHKDConfig(), "quick": _QUICK, "full": replace(_QUICK, steps=400, schedule="cosine")}
