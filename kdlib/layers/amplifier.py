"""What makes a teacher's anomalous features differ more: a gated residual per level, on top of a frozen network.

f --> + position --> match --> cosines to a memory --> softmax --> share of its abnormal half = gate w
f --> scale --> tanh --> times f = residual d            f + w d
"""

from __future__ import annotations

from math import ceil

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib.layers.flow import positions

_WIDEST = 1024


class Amplifier(nn.Module):
    """Residual anomaly amplification of one level.

    The gate lies in 0..1; a channel of the residual is no larger than that of the feature, so that a channel can be
    cancelled or doubled at most. Source: AAND (arXiv 2405.02068), its code's `RAR`.

    Args:
        channels: Channels C of the features.
        items: Learned vectors of the memory for the normal, and as many for the abnormal.
        temperature: Divides the cosines before the softmax.
    """

    def __init__(self, channels: int, *, items: int = 50, temperature: float = 0.2) -> None:
        super().__init__()
        self.items, self.temperature = items, temperature
        self.match, self.scale = _projection(channels), _projection(channels)
        self.memory = nn.Parameter(torch.randn(2 * items, channels))

    def forward(self, f: Tensor, gate: Tensor | None = None) -> Tensor:
        """Amplified features of `f` [B, C, h, w]; a `gate` [B, 1, h, w] that is handed in replaces its own."""
        return f + (self.gate(f) if gate is None else gate) * self.residual(f)

    def gate(self, f: Tensor) -> Tensor:
        """How abnormal each position of features [B, C, h, w] is, [B, 1, h, w] in 0..1, float32."""
        query = self.match(f + position_map(f)).float()
        with torch.autocast(f.device.type, enabled=False):
            keys = F.normalize(self.memory.float(), dim=1)[..., None, None]
            cosines = F.conv2d(F.normalize(query, dim=1), keys)
        return F.softmax(cosines / self.temperature, dim=1)[:, self.items :].sum(1, keepdim=True)

    def residual(self, f: Tensor) -> Tensor:
        """What is added where the gate is open, [B, C, h, w], at most as large as `f`."""
        return self.scale(f).tanh() * f


def position_map(f: Tensor) -> Tensor:
    """Sines and cosines of column and row in turn, [B, C, h, w] for features of any number of channels C."""
    channels = f.shape[1]
    encoding = positions(f, 4 * ceil(channels / 4))
    return encoding.unflatten(1, (2, 2, -1)).transpose(2, 3).flatten(1, 3)[:, :channels]


def _projection(channels: int) -> nn.Sequential:
    """Three 1x1 convolutions, `channels -> h -> h -> channels`, h twice as many channels and 1,024 at most."""
    hidden = min(2 * channels, _WIDEST)
    widths = ((channels, hidden), (hidden, hidden), (hidden, channels))
    layers: list[nn.Module] = []
    for c_in, c_out in widths:
        layers += [nn.Conv2d(c_in, c_out, 1), nn.ReLU(inplace=True)]
        nn.init.kaiming_normal_(layers[-2].weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
    return nn.Sequential(*layers[:-1])
