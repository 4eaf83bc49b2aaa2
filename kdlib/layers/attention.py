"""Attention over positions: a map of features, weighed by a softmax of what is made of it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Axis = Literal["width", "all", "none"]


class PositionAttention(nn.Module):
    """`A softmax(W A)` with `A = ReLU(V x)`; V and W are convolutions with bias.

    A softmax over n positions sums to 1: equal logits divide A by n. Over the width alone, as published, a turned image
    has other weights, and one twice as wide has half of them.
    Source: DBFAD, code.

    Args:
        c_in: Channels of x.
        c_out: Channels of A and of the output.
        kernel: Of all convolutions, odd.
        hidden: W is two convolutions with a ReLU between them.
        axis: The softmax is over the `width`, over `all` positions, or left out (`none`: the output is A).
    """

    def __init__(self, c_in: int, c_out: int, *, kernel: int = 1, hidden: bool = False, axis: Axis = "width") -> None:
        super().__init__()
        self.axis = axis
        self.look = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)
        inner = [_same(c_out, kernel), nn.ReLU()] if hidden else []
        self.weigh = nn.Sequential(*inner, _same(c_out, kernel)) if axis != "none" else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_out, h, w] of features [B, c_in, h, w]."""
        a = F.relu(self.look(x))
        if self.weigh is None:
            return a
        logits = self.weigh(a)
        if self.axis == "width":
            return a * torch.softmax(logits, dim=3)
        return a * torch.softmax(logits.flatten(2), dim=2).view_as(logits)


def _same(channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
