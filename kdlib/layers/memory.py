"""A memory between an embedding and what is made of it: only what learned centres explain passes."""

from __future__ import annotations

from math import expm1, log
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Rho = Literal["residual", "zero", "identity"]


class CRAM(nn.Module):
    """Central residual aggregation: every position becomes a soft choice of centres, plus a narrow residual.

    Tokens `x_i` [D] of a map, centres `c_k` with scales `s_k > 0`::

        a_ik = softmax_k(-s_k ||x_i - c_k||^2)        y_i = sum_k a_ik (c_k + rho(x_i - c_k))

    `rho = 0` keeps `y_i` inside the convex hull of the centres, a pure memory; with `rho` the identity `y_i` is
    `x_i`, no memory at all; a small network that starts at 0 lies in between.

    Source: the name, the purpose and the place are SNL's (arXiv 2402.17091); the formula is this course's, built from
    NetVLAD's and Deep-TEN's residuals to centres, because the paper's text was not at hand. So are the normalisation of
    the tokens over the batch, and the division of their compactness by D.

    Args:
        channels: Channels of the map.
        width: Channels D of a token; 1x1 convolutions lead there and back. `None` is half the map's, 512 at most.
        centres: Number of centres K.
        rho: `residual` (D -> D/8 -> D, last layer starts at 0), `zero` or `identity`.

    Raises:
        ValueError: If there is no centre or `rho` is unknown.
    """

    def __init__(self, channels: int, *, width: int | None = None, centres: int = 128, rho: Rho = "residual") -> None:
        super().__init__()
        width = width or min(512, max(channels // 2, 1))
        if centres < 1 or rho not in ("residual", "zero", "identity"):
            raise ValueError(f"centres is {centres}, rho {rho!r}; expected 1 or more, residual, zero or identity")
        self.rho = rho
        # Tokens of fixed size: where they may grow, the student runs away from its centres.
        norm = nn.BatchNorm2d(width, affine=False)
        self.reduce = nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), norm)
        self.expand = nn.Conv2d(width, channels, 1)
        self.centres = nn.Parameter(torch.randn(centres, width))
        self.scales = nn.Parameter(torch.full((centres,), log(expm1(1 / width))))
        if rho == "residual":
            self.squeeze, self.stretch = nn.Linear(width, max(width // 8, 1)), nn.Linear(max(width // 8, 1), width)
            nn.init.zeros_(self.stretch.weight)
            nn.init.zeros_(self.stretch.bias)

    def forward(self, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The map [B, C, h, w] that the centres make of `z` [B, C, h, w], and its tokens' compactness as `compact`."""
        tokens = self.tokens(z)
        y = self.aggregate(tokens).mT.unflatten(2, z.shape[-2:])
        return self.expand(y), {"compact": self.compactness(tokens)}

    def tokens(self, z: Tensor) -> Tensor:
        """Tokens [B, h * w, D] of a map [B, C, h, w], in float32."""
        return self.reduce(z).flatten(2).mT.float()

    def assign(self, x: Tensor) -> Tensor:
        """Shares [..., K] of the centres in tokens `x` [..., D]; they sum to 1."""
        return F.softmax(-F.softplus(self.scales) * self.squared_distances(x), dim=-1)

    def aggregate(self, x: Tensor) -> Tensor:
        """What the centres make of tokens `x` [..., D]; same shape."""
        # Half precision would round distances more coarsely than they differ between centres.
        with torch.autocast(x.device.type, enabled=False):
            a = self.assign(x)
            y = a @ self.centres
            if self.rho == "zero":
                return y
            if self.rho == "identity":
                return y + (x - y)
            # rho's linear layers change places with the difference and with the sum over centres: K times cheaper.
            inside, own = self.squeeze(x), F.linear(self.centres, self.squeeze.weight)
            hidden = torch.einsum("...k,...kd->...d", a, F.relu(inside[..., None, :] - own))
            return y + self.stretch(hidden)

    def compactness(self, x: Tensor) -> Tensor:
        """Mean squared distance of tokens `x` [..., D] to their nearest centre, over D; moves centres only."""
        with torch.autocast(x.device.type, enabled=False):
            return self.squared_distances(x.detach()).amin(-1).mean() / x.shape[-1]

    def squared_distances(self, x: Tensor) -> Tensor:
        """Squared distances [..., K] of tokens `x` [..., D] to all centres."""
        c = self.centres
        return (x.pow(2).sum(-1, keepdim=True) - 2 * x @ c.mT + c.pow(2).sum(1)).clamp_min(0)

    @torch.no_grad()
    def seed(self, x: Tensor) -> None:
        """Moves centres onto random tokens of `x` [N, D]; where N < K the other centres stay."""
        chosen = x[torch.randperm(len(x), device=x.device)[: len(self.centres)]]
        self.centres[: len(chosen)] = chosen
