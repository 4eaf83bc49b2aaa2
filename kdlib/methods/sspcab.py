"""SSPCAB on RD: between bottleneck and decoder every position of the embedding is replaced by a guess from around it.

    image --> teacher (frozen) --> t1, t2, t3 --> MFF + OCE --> z --> masked convolution --> channel attention --> z'
                                    |   |   |                   |                                            |     |
                                    |   |   |                   +--------------- mean (z' - z)^2 ------------+     |
                                    1 - cos per level <-- s1, s2, s3 <-- decoder <---------------------------------+

Loss: `L = L_RD + 0.1 mean (z' - z)^2`, L_RD as in `rd`.

Paper: Ristea, Madan, Ionescu, Nasrollahi, Khan, Moeslund, Shah. Self-Supervised Predictive Convolutional Attentive
    Block for Anomaly Detection. CVPR 2022, arXiv 2111.09099.
Differs from the paper: its hosts are DRAEM, CutPaste and video methods; it has no distillation, so that host and place
    are ours: the embedding, which is non-negative, as the block's output is. There the paper would replace a
    convolution, here the block stands between two networks. Its full text was not at hand: formulas and defaults are
    those of notes, and of the follow-up paper by the same authors (SSMCTB).
Differs from the official code: written from the formula; the block agrees with the published PyTorch file, whose
    TensorFlow twin mirrors the rim instead of padding it by zeros, and takes the ReLU before the sum.
The `quick` and `full` presets are RD's with a gap of 0: an embedding of 4 x 4 or 8 x 8 positions is too small for two
    positions' distance, at which nearly every guess would read zeros from outside.
Taught in: notebooks/09_fabric.ipynb, "Build it".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from kdlib import teachers
from kdlib.layers import necks
from kdlib.methods.rd import RD, RDConfig


@dataclass(frozen=True, kw_only=True)
class SSPCABConfig(RDConfig):
    """RD's settings and the block's.

    Attributes:
        neck: `sspcab`, this method's block; `none` leaves RD.
        neck_weight: Weight of the prediction's loss; 0 leaves a sparse convolution with channel attention.
        kernel: Side of the four sub-kernels, in positions.
        gap: Positions between a sub-kernel and the hidden centre.
        attention: Weigh channels after the masked convolution.
        detach: The prediction's loss teaches the block alone; as published it also draws the embedding towards what
            can be predicted.
    """

    neck: necks.Neck = "sspcab"
    kernel: int = 1
    gap: int = 1
    attention: bool = True
    detach: bool = False


class ReverseSSPCAB(RD):
    """Reverse distillation of an embedding guessed from its surroundings. Images must be multiples of 32 pixels."""

    name = "sspcab"
    config: SSPCABConfig

    def __init__(self, config: SSPCABConfig | None = None) -> None:
        super().__init__(config or SSPCABConfig())

    def make_neck(self, channels: int) -> nn.Module:
        c = self.config
        block: dict[str, Any] = {"kernel": c.kernel, "gap": c.gap, "attention": c.attention, "detach": c.detach}
        return necks.neck(c.neck, channels, **(block if c.neck == "sspcab" else {}))


_QUICK = SSPCABConfig(backbone=teachers.DEFAULT, neighbourhood=3, steps=400, gap=0)
PRESETS = {
    "mvtec": SSPCABConfig(),
    "quick": _QUICK,
    "full": replace(_QUICK, strides=(8, 16), steps=2500, batch_size=8, schedule="cosine", clip=1.0),
}
