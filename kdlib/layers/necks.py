"""Necks: what lies between a student's embedding and its decoder. `neck(z) -> (z, named losses)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from kdlib.layers.memory import CRAM
from kdlib.layers.sspcab import SSPCAB

Neck = Literal["none", "cram", "sspcab"]


class Through(nn.Module):
    """No neck: the embedding passes as it is."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The embedding [B, C, h, w] and no losses."""
        return z, {}


NECKS: dict[Neck, Callable[..., nn.Module]] = {"none": Through, "cram": CRAM, "sspcab": SSPCAB}


def neck(name: Neck, channels: int, **settings: Any) -> nn.Module:
    """A fresh neck for embeddings of so many channels."""
    return NECKS[name](channels, **settings)
