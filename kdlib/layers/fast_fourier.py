"""Fast Fourier convolution: some channels look at their surroundings, the others at the whole map.

    local --- 3x3 ---> + ---> local        whole --- spectrum ---> + ---> whole
    whole --- 3x3 -----+                   local --- 3x3 ----------+

Sources: Chi, Jiang, Mu, Fast Fourier Convolution, NeurIPS 2020; the doubling form is that of SingleNet's code.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from kdlib.layers.spectral import SpectralUnit


class Paths(NamedTuple):
    """Channels of the two paths; without `whole` there is one path."""

    local: int
    whole: int

    @classmethod
    def of(cls, channels: int, ratio: float) -> Paths:
        """So many channels, of which a share sees the whole map; one alone would have nothing to halve."""
        whole = int(channels * ratio)
        return cls(channels - whole, whole) if whole > 1 else cls(channels, 0)


class SpectralDoubling(nn.Module):
    """The spectrum of half the channels, mixed, then a transposed convolution that doubles height and width.

    Ordinary fast Fourier convolution adds what entered the spectrum to what left it; SingleNet's code does not.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        half = c_out // 2
        self.reduce = nn.Sequential(nn.Conv2d(c_in, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True))
        self.unit = SpectralUnit(half)
        self.enlarge = nn.ConvTranspose2d(half, c_out, 2, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c_out, 2h, 2w] of features [B, c_in, h, w]."""
        return self.enlarge(self.unit(self.reduce(x)))


class FastFourierBlock(nn.Module):
    """Convolutions on and between two paths, then batch normalisation and LeakyReLU on each.

    Args:
        c_in: Channels in.
        c_out: Channels out.
        doubling: Transposed convolutions double height and width; 3x3 convolutions keep them.
        momentum: Of batch normalisation.
        signed: No LeakyReLU behind the local path, for an output that may be negative.

    Raises:
        ValueError: If whole channels would become whole ones at the same size, a form that no method here has.
    """

    def __init__(
        self, c_in: Paths, c_out: Paths, *, doubling: bool, momentum: float = 0.1, signed: bool = False
    ) -> None:
        super().__init__()
        if c_in.whole and c_out.whole and not doubling:
            raise ValueError(f"{c_in} become {c_out} without doubling; expected whole channels on one side only")
        self.local_local = _convolution(c_in.local, c_out.local, doubling)
        self.whole_local = _convolution(c_in.whole, c_out.local, doubling) if c_in.whole else None
        self.local_whole = _convolution(c_in.local, c_out.whole, doubling) if c_out.whole else None
        self.whole_whole = SpectralDoubling(c_in.whole, c_out.whole) if c_in.whole and c_out.whole else None
        self.end_local = _ending(c_out.local, momentum, signed)
        self.end_whole = _ending(c_out.whole, momentum, False) if c_out.whole else None

    def forward(self, local: Tensor, whole: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Features [B, C, h, w] of both paths; `None` for a path without channels."""
        new_local = self.local_local(local)
        if self.whole_local is not None:
            new_local = new_local + self.whole_local(whole)
        if self.local_whole is None or self.end_whole is None:
            return self.end_local(new_local), None
        new_whole = self.local_whole(local)
        if self.whole_whole is not None:
            new_whole = new_whole + self.whole_whole(whole)
        return self.end_local(new_local), self.end_whole(new_whole)


def _convolution(c_in: int, c_out: int, doubling: bool) -> nn.Module:
    if doubling:
        return nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1, bias=False)
    return nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)


def _ending(channels: int, momentum: float, signed: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(channels, momentum=momentum), nn.Identity() if signed else nn.LeakyReLU(inplace=True)
    )
