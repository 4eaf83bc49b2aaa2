"""Normalising flows on feature maps: invertible networks whose likelihood is exact, position by position."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Literal

import numpy as np
import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AffineCouplingOneSided, GLOWCouplingBlock, PermuteRandom
from torch import Tensor, nn

Coupling = Literal["double", "single"]
_BLOCKS = {"double": GLOWCouplingBlock, "single": AffineCouplingOneSided}


class ConvFlow(nn.Module):
    """Blocks of a fixed random permutation of the channels and a conditional affine coupling, in float32.

    One half of the channels, with an encoding of the position, says how the other half is scaled and shifted;
    `double` couplings then do the same the other way round. A fresh flow only permutes. Source: AST (Rudolph et al.,
    WACV 2023), whose code has four double blocks; the couplings are FrEIA's. Other published flows are settings of
    eight blocks: `kernels=(3, 1) * 4, coupling="single", clamp=2, position=0` is like FastFlow,
    `kernels=(1,) * 8, position=128` like CFlow.

    Args:
        channels: Channels of the features, at least 2.
        kernels: Convolution kernels, odd; one block each.
        hidden: Channels inside the subnets.
        clamp: A channel's log-scale stays within this bound in every coupling.
        position: Channels of the position's encoding, a multiple of 4; 0 leaves it out.
        coupling: `double` changes all channels in a block, `single` half of them.

    Raises:
        ValueError: If there is no block, or a number cannot be.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernels: Sequence[int] = (3, 3, 3, 5),
        hidden: int = 64,
        clamp: float = 1.9,
        position: int = 32,
        coupling: Coupling = "double",
    ) -> None:
        super().__init__()
        if not kernels or any(k < 1 or k % 2 == 0 for k in kernels):
            raise ValueError(f"kernels are {tuple(kernels)}; expected odd numbers, one for each block: (3, 3, 3, 5)")
        if channels < 2 or hidden < 1 or clamp <= 0:
            raise ValueError(
                f"channels are {channels}, hidden {hidden}, clamp {clamp}; a flow needs 2 channels, 1 and more than 0"
            )
        self.position = position
        condition = {"cond": 0, "cond_shape": (position,)} if position else {}
        # Told of channels only, FrEIA sums log-scales over channels only: the log-determinant of every position.
        self.net = SequenceINN(channels)
        with _numpy_generator_kept():
            for seed, kernel in enumerate(kernels):
                self.net.append(PermuteRandom, seed=seed)
                self.net.append(
                    _BLOCKS[coupling],
                    subnet_constructor=partial(_Subnet, hidden=hidden, kernel=kernel),
                    clamp=clamp,
                    clamp_activation=partial(_bounded, clamp=clamp),
                    **condition,
                )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Latents [B, C, h, w] of features [B, C, h, w], and each position's part of the log-determinant [B, h, w]."""
        return self._run(x, inverse=False)

    def inverse(self, z: Tensor) -> Tensor:
        """Features [B, C, h, w] of latents [B, C, h, w]."""
        return self._run(z, inverse=True)[0]

    def _run(self, x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            conditions = [positions(x, self.position)] if self.position else None
            y, log_det = self.net(x, conditions, rev=inverse)
        return y, log_det


def negative_log_likelihood(z: Tensor, log_det: Tensor) -> Tensor:
    """Negative log-likelihood per channel [B, h, w], without its constant: `(||z||^2 / 2 - log|det J|) / C`.

    Args:
        z: Latents [B, C, h, w], standard normal for normal images.
        log_det: Log-determinants [B, h, w].
    """
    return (0.5 * z.pow(2).sum(1) - log_det) / z.shape[1]


def positions(like: Tensor, channels: int) -> Tensor:
    """Sines and cosines of column (first half of the channels) and row (second half) for features [B, C, h, w].

    Returns:
        [B, channels, h, w], wavelengths 2 pi to 20,000 pi positions. Source: Vaswani et al. 2017, in two dimensions.

    Raises:
        ValueError: If `channels` is no multiple of 4.
    """
    if channels % 4:
        raise ValueError(f"the position's encoding has {channels} channels; expected a multiple of 4")
    h, w = like.shape[-2:]
    n = channels // 4
    frequencies = 10_000 ** (-torch.arange(n, device=like.device, dtype=torch.float32) / n)
    columns, rows = (torch.outer(frequencies, torch.arange(k, device=like.device).float()) for k in (w, h))
    x, y = (torch.cat([angles.sin(), angles.cos()]) for angles in (columns, rows))
    encoding = torch.cat([x[:, None, :].expand(-1, h, -1), y[:, :, None].expand(-1, -1, w)])
    return encoding.expand(len(like), -1, -1, -1)


class _Subnet(nn.Module):
    """Two convolutions and a gain of zero, with which every coupling starts as the identity."""

    def __init__(self, c_in: int, c_out: int, *, hidden: int, kernel: int) -> None:
        super().__init__()
        same = {"padding": kernel // 2, "padding_mode": "replicate" if kernel > 1 else "zeros"}
        self.net = nn.Sequential(
            nn.Conv2d(c_in, hidden, kernel, **same),  # type: ignore[arg-type]
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, c_out, kernel, **same),  # type: ignore[arg-type]
        )
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.net(x)


def _bounded(s: Tensor, clamp: float) -> Tensor:
    """Log-scale in -1..1, which FrEIA multiplies by `clamp`; about 0.64 s / clamp near zero."""
    return 0.636 * torch.atan(s / clamp)


@contextmanager
def _numpy_generator_kept() -> Iterator[None]:
    """Undoes that FrEIA seeds NumPy's global generator."""
    state = np.random.get_state()  # noqa: NPY002 - the generator that FrEIA seeds
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
