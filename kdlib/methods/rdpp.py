"""RD++: a projection behind every level of the teacher learns, on noise, what the bottleneck must not let pass.

    image --> teacher (frozen) --> t1, t2, t3 --> projections --> p1, p2, p3 --> RD's student --> s1, s2, s3
                                   |   |   |                                                      |   |   |
                                   +---+---+-------------------- 1 - cos per level ---------------+---+---+
    the same with noise --> teacher --> n1, n2, n3 --> projections --> q1, q2, q3
                            training only: q equal to p, n away from p, all p near each other

Loss: `L = L_RD(t, s) + 0.2 (L_transport + 0.01 L_reconstruct + 0.1 L_contrast) / 1.11`, every term summed over levels

    `L_RD`           1 - cos(vec t, vec s), as in RD: the goal is the raw feature, the way to it leads through p
    `L_reconstruct`  mean_{b,p} [1 - cos(q(p), p(p))] per position: the noise is to vanish
    `L_contrast`     mean_b max(0, cos(vec n, vec p) - 0.5): raw noisy features differ from projected normal ones
    `L_transport`    Sinkhorn divergence of two sets of projected images, softmax over each: normal ones lie together

Paper: Tien et al. Revisiting Reverse Distillation for Anomaly Detection. CVPR 2023.
Differs from the paper: its text was not at hand; losses and settings are the official code's. Its transport loss is
    meant for pairs of normal images; the code compares a batch with the same batch in another order, which is a set
    with itself: 0, without a gradient (`ssot="as_coded"`, tested). `ssot="halves"` compares two halves of the batch
    by a Sinkhorn that has converged; `off` saves the price of the 0.
Differs from the official code: a pattern of its own for each image and step, where the code crops one pattern for ever;
    patches scale with the image; 32 images per step for two added gradients of 16; 200 epochs for a list of 10 to 300
    per category; the last step counts, not the best of all epochs on the test images; the odd last batch's gradient
    is not carried over; images are resized with antialiasing (the code's OpenCV has none, so that its textures are
    rougher); RD's differences (`methods/rd.py`).
The `quick` preset differs too: EfficientNet-Lite0 teaches, its features averaged over 3 x 3 positions
    (`neighbourhood`); the fast noise, no transport loss, a falling rate, clipped gradients, hundreds of steps.
The `full` preset is `quick` for 256 px, without the finest level. Every step runs the teacher on noisy images, which no
    cache can hold: it costs two and a half times RD's, so that ten minutes on two cores are less than half as many.
Taught in: notebooks/07_rdpp.ipynb, "Build it".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import losses, teachers
from kdlib.contract import Batch, Losses, Phase, TrainingSet
from kdlib.layers.instance_norm import InstanceNorm
from kdlib.layers.sinkhorn import sinkhorn_divergence
from kdlib.methods.rd import RD, RDConfig
from kdlib.synthesis.noise import Noise, noisy_patch

Transport = Literal["as_coded", "halves", "off"]
_PUBLISHED_SUM = 1.11  # of the three published weights, by which the code divides


@dataclass(frozen=True, kw_only=True)
class RDPPConfig(RDConfig):
    """RD's settings and RD++'s own, the official code's but for length and batch; a weight of 0 switches a loss off.

    Attributes:
        lr: Adam learning rate of bottleneck and decoder.
        lr_projection: Adam learning rate of the projections, in the same optimiser.
        projection_weight: Weight of the three losses together.
        reconstruct: Weight of the reconstruction loss.
        contrast: Weight of the contrast loss.
        contrast_margin: Cosine from which on the contrast loss acts.
        transport: Weight of the transport loss.
        ssot: What the transport loss compares: the batch with itself (`as_coded`), its `halves`, or nothing (`off`).
        noise: `simplex`, as published, or `bands`, the fast one; see `kdlib.synthesis.noise`.
        noise_strength: Factor of the noise, for images in 0..1.
        patch: Smallest side of the noisy rectangle and the first one too large, in pixels of a 256 px image.
    """

    batch_size: int = 32
    lr_projection: float = 0.001
    projection_weight: float = 0.2
    reconstruct: float = 0.01
    contrast: float = 0.1
    contrast_margin: float = 0.5
    transport: float = 1.0
    ssot: Transport = "as_coded"
    noise: Noise = "simplex"
    noise_strength: float = 0.2
    patch: tuple[float, float] = (10.0, 32.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        weights = (self.projection_weight, self.reconstruct, self.contrast, self.transport)
        if min(*weights, self.noise_strength) < 0 or self.lr_projection <= 0:
            raise ValueError(
                f"projection_weight, reconstruct, contrast and transport are {weights}, noise_strength is "
                f"{self.noise_strength}, expected 0 or more; lr_projection is {self.lr_projection}, expected above 0"
            )
        if not 1 <= self.patch[0] < self.patch[1] <= 255:
            raise ValueError(f"patch is {self.patch}; expected two lengths that grow, from 1 to 255 pixels")

    @property
    def looks_at_noise(self) -> bool:
        """Whether a loss needs the noisy image, which costs one more pass of the teacher in every step."""
        return self.projection_weight * max(self.reconstruct, self.contrast) > 0


class Projection(nn.Sequential):
    """Four convolutions that halve the channels twice and double them again; the shape stays.

    Args:
        channels: Channels of the level, at least 4.
    """

    def __init__(self, channels: int) -> None:
        if channels < 4:
            raise ValueError(f"a level has {channels} channels; a projection to a quarter of them needs 4 or more")
        half, quarter = channels // 2, channels // 4
        widths = [channels, half, quarter, half, channels]
        layers: list[nn.Module] = []
        for c_in, c_out in pairwise(widths):
            layers += [nn.Conv2d(c_in, c_out, 3, padding=1), InstanceNorm(), nn.LeakyReLU(inplace=True)]
        super().__init__(*layers)


def contrast_loss(noisy: Tensor, projected: Tensor, margin: float = 0.5) -> Tensor:
    """Mean over images of how far the cosine of whole maps [B, C, h, w] exceeds the margin, a scalar."""
    apart = -torch.ones(len(noisy), device=noisy.device)
    return F.cosine_embedding_loss(noisy.flatten(1).float(), projected.flatten(1).float(), apart, margin=margin)


def transport_loss(projected: Tensor, ssot: Transport) -> Tensor:
    """Sinkhorn divergence of images [B, C, h, w], each softmaxed as one vector, a scalar; 0 for a single image."""
    points = torch.softmax(projected.flatten(1).float(), dim=1)
    if ssot == "halves" and len(points) > 1:
        one, other = points.chunk(2)
        return sinkhorn_divergence(one, other, diameter=2.0)
    shuffled = points[torch.randperm(len(points), device=points.device)]
    return sinkhorn_divergence(points, shuffled, diameter=1e7, scaling=0.95, rounds=0)


class RDPP(RD):
    """Reverse distillation with projections. Images must be multiples of 32 pixels."""

    name = "rdpp"
    config: RDPPConfig

    def __init__(self, config: RDPPConfig | None = None) -> None:
        config = config or RDPPConfig()
        super().__init__(config)
        self.projections = nn.ModuleList(Projection(c) for c in self.teacher.channels)

    def project(self, t: Sequence[Tensor]) -> list[Tensor]:
        """Features [B, C, h, w] per level as the student sees them, of the same shapes."""
        return [projection(f) for projection, f in zip(self.projections, t, strict=True)]

    def restore(self, x: Tensor, t: Sequence[Tensor]) -> tuple[list[Tensor], Losses]:
        return super().restore(x, self.project(t))

    def loss(self, batch: Batch) -> Losses:
        t = self.teach(batch.image, batch.teacher)
        p = self.project(t)
        terms = self.distilled(t, *super().restore(batch.image, p), batch.progress)
        named = self.projection_losses(p, self.teach(_noisy(batch)) if self.config.looks_at_noise else [])
        share = self.config.projection_weight / _PUBLISHED_SUM
        for name, term in named.items():
            terms |= {"total": terms["total"] + share * getattr(self.config, name) * term, name: term}
        return terms

    def projection_losses(self, p: Sequence[Tensor], noisy: Sequence[Tensor]) -> Losses:
        """The three losses of the projections, summed over levels, of those that are switched on.

        Args:
            p: Projected features of normal images, [B, C, h, w] per level.
            noisy: The teacher's features of the same images with noise; empty where no loss needs them.
        """
        c = self.config
        named: Losses = {}
        if noisy and c.reconstruct:
            q = self.project(noisy)
            named["reconstruct"] = losses.over_levels(list(zip(q, p, strict=True)), losses.per_position_cosine)["total"]
        if noisy and c.contrast:
            pushed = [contrast_loss(n, f, c.contrast_margin) for n, f in zip(noisy, p, strict=True)]
            named["contrast"] = torch.stack(pushed).sum()
        if c.ssot != "off" and c.projection_weight * c.transport:
            named["transport"] = torch.stack([transport_loss(f, c.ssot) for f in p]).sum()
        return named

    def phases(self, images: TrainingSet) -> Iterator[Phase]:
        projections = list(self.projections.parameters())
        own = {id(p) for p in projections}
        others = [p for p in self.student_parameters() if id(p) not in own]
        groups: list[dict[str, Any]] = [{"params": projections, "lr": self.config.lr_projection}, {"params": others}]
        for phase in super().phases(images):
            yield replace(phase, parameters=groups, view=self.view if self.config.looks_at_noise else None)

    def view(self, image: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The image [3, H, W] with a patch of noise, as `noisy`."""
        c = self.config
        noisy = noisy_patch(image, generator, noise=c.noise, strength=c.noise_strength, patch=c.patch)
        return {"noisy": noisy}


def _noisy(batch: Batch) -> Tensor:
    if "noisy" not in batch.views:
        raise ValueError(
            f"the batch has the views {sorted(batch.views)}; RD++'s loss needs 'noisy', which `fit` makes by `view`: "
            "give Batch(views={'noisy': ...}), or set reconstruct=0 and contrast=0"
        )
    return batch.views["noisy"]


_QUICK = RDPPConfig(
    backbone=teachers.DEFAULT,
    neighbourhood=3,
    steps=200,
    batch_size=8,
    schedule="cosine",
    clip=1.0,
    noise="bands",
    ssot="off",
)
PRESETS = {
    "mvtec": RDPPConfig(),
    "quick": _QUICK,
    "full": replace(_QUICK, strides=(8, 16), steps=1000),
}
