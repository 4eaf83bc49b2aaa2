"""Noise on features, which stands for the anomalies that normal images do not show."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def with_noise(features: Sequence[Tensor], strength: float) -> list[Tensor]:
    """Standardised features [B, C, h, w] per level with Gaussian noise, drawn from torch's global generator.

    Every image has its own standard deviation in 0..`strength` and, every second time, its own rectangle outside of
    which it stays clean; levels share both.
    """
    count, device = len(features[0]), features[0].device
    sigma, everywhere = strength * torch.rand(count, 1, 1, 1, device=device), torch.rand(count, 1, 1, 1, device=device)
    centre, extent = (torch.rand(2, count, 1, device=device) for _ in range(2))
    noisy = []
    for f in features:
        rows, columns = ((torch.arange(n, device=device) + 0.5) / n for n in f.shape[-2:])
        within = [(axis - centre[k]).abs() < 0.05 + 0.2 * extent[k] for k, axis in enumerate((rows, columns))]
        inside = within[0][:, None, :, None] & within[1][:, None, None, :]
        noisy.append(f + sigma * (inside | (everywhere < 0.5)) * torch.randn_like(f))
    return noisy
