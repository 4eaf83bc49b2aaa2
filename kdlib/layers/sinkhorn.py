"""Sinkhorn divergence: how far apart two sets of points are, by optimal transport that is blurred a little.

    `S(x, y) = OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2`      0 for two equal sets, whatever their order

OT is the price of moving the points of one set onto the other, half the squared distance for each, plus `blur^2` times
the plan's entropy. Sinkhorn's rounds find it by dual potentials, one per point, at falling temperatures.
Source: Feydy et al., AISTATS 2019; the published code of RD++ takes GeomLoss's.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinkhorn_divergence(
    x: Tensor, y: Tensor, *, diameter: float, blur: float = 0.05, scaling: float = 0.5, rounds: int = 100
) -> Tensor:
    """Divergence of two sets of points, a scalar; every point of a set weighs the same.

    Args:
        x: Points [N, D].
        y: Points [M, D].
        diameter: Largest distance that may occur; the first temperature is its square.
        blur: Distance below which points need not be told apart; the last temperature is its square.
        scaling: Ratio of neighbouring temperatures' roots, below 1.
        rounds: Further rounds at the last temperature; enough where distances are not many times `blur`. GeomLoss has
            none, which leaves a relative error of a few thousandths there, and of several per cent at larger distances.
    """
    costs = [_cost(a, b) for a, b in ((x, y), (y, x), (x, x), (y, y))]
    temperatures = [diameter**2]
    steps = max(0, math.ceil(math.log(diameter / blur) / -math.log(scaling)))
    temperatures += [(diameter * scaling**step) ** 2 for step in range(steps)]
    temperatures += [blur**2] * (1 + rounds)
    with torch.no_grad():
        f, g, p, q = (_softmin(diameter**2, cost, torch.zeros_like(cost[0])) for cost in costs)
        for temperature in temperatures:
            new = [_softmin(temperature, c, other) for c, other in zip(costs, (g, f, p, q), strict=True)]
            f, g, p, q = ((old + better) / 2 for old, better in zip((f, g, p, q), new, strict=True))
    f, g, p, q = (_softmin(blur**2, c, other) for c, other in zip(costs, (g, f, p, q), strict=True))
    return (f - p).mean() + (g - q).mean()


def _cost(a: Tensor, b: Tensor) -> Tensor:
    """Half the squared distances [N, M]; only `a` takes a gradient, which is half of each potential's."""
    return torch.cdist(a, b.detach(), compute_mode="donot_use_mm_for_euclid_dist").square() / 2


def _softmin(temperature: float, cost: Tensor, potential: Tensor) -> Tensor:
    """Potentials [N] that answer potentials [M] at a temperature."""
    free = torch.logsumexp((potential - cost) / temperature, dim=1)
    return temperature * (math.log(cost.shape[1]) - free)
