"""Butterworth's low-pass filter on feature maps: what changes from place to place is taken away, softly.

    gain(r) = 1 / (1 + (r / cutoff)^4)        r in cycles per position, half the strength at the cutoff

Source: SingleNet's code, which applies it twice.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

LowPass = Literal["real", "magnitude", "none"]


def butterworth(height: int, width: int, cutoff: float, device: torch.device | None = None) -> Tensor:
    """Gains [h, w // 2 + 1] of order 2, frequencies in the order of `torch.fft.rfft2`."""
    vertical = torch.fft.fftfreq(height, device=device)[:, None]
    horizontal = torch.fft.rfftfreq(width, device=device)[None]
    return 1 / (1 + ((vertical.square() + horizontal.square()) / cutoff**2).square())


def low_pass(x: Tensor, cutoff: float, kind: LowPass = "real", passes: int = 2) -> Tensor:
    """Features [B, C, h, w] without their high frequencies, in float32.

    Args:
        x: Features.
        cutoff: Frequency whose strength one pass halves, in cycles per position; the highest there is is 0.5.
        kind: `real` keeps signs. `magnitude` takes the absolute value after each pass, as SingleNet's code does: on
            features that can be negative that is another map. `none` leaves the features alone.
        passes: How often the filter is applied.
    """
    if kind == "none":
        return x
    with torch.autocast(x.device.type, enabled=False):
        x = x.float()
        gains = butterworth(x.shape[-2], x.shape[-1], cutoff, x.device)
        for _ in range(passes):
            x = torch.fft.irfft2(torch.fft.rfft2(x) * gains, s=x.shape[-2:])
            if kind == "magnitude":
                x = x.abs()
    return x
