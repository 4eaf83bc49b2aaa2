"""Reconstruction in two domains: a spatial residual block beside a filter in the frequency domain.

Sources: residual blocks with a Fourier branch (Res FFT-Conv, Mao et al., AAAI 2023); fast Fourier convolution (Chi et
al., NeurIPS 2020).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Frequency = Literal["convolve", "gate", "none"]


class DualDomain(nn.Module):
    """`y = x + S(x) + R(x)` with S two 3x3 convolutions and R a filter that sees the whole image at once.

    Args:
        channels: Channels in and out.
        frequency: R: `convolve` mixes the spectrum's channels by two 1x1 convolutions, `gate` weakens frequencies
            by how strong they are, `none` leaves R out.
    """

    def __init__(self, channels: int, frequency: Frequency = "convolve") -> None:
        super().__init__()
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        branches = {"convolve": SpectralConv, "gate": SpectralGate}
        self.spectral = branches[frequency](channels) if frequency != "none" else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] of features [B, C, h, w]."""
        y = x + self.spatial(x)
        return y if self.spectral is None else y + self.spectral(x)


class _Spectral(nn.Module):
    """Transforms features to frequencies, lets a subclass filter them, and transforms back, all in float32."""

    norm = "ortho"

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] in float32 of features [B, C, h, w]."""
        with torch.autocast(x.device.type, enabled=False):
            spectrum = torch.fft.rfft2(x.float(), norm=self.norm)
            return torch.fft.irfft2(self.filtered(spectrum), s=x.shape[-2:], norm=self.norm)

    def filtered(self, spectrum: Tensor) -> Tensor:
        """Complex spectrum [B, C, h, w // 2 + 1] after the filter."""
        raise NotImplementedError


class SpectralConv(_Spectral):
    """1x1 convolutions on real and imaginary parts: `W2 ReLU(BN(W1 [Re X; Im X]))`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        both = 2 * channels
        self.net = nn.Sequential(
            nn.Conv2d(both, both, 1, bias=False), nn.BatchNorm2d(both), nn.ReLU(inplace=True), nn.Conv2d(both, both, 1)
        )

    def filtered(self, spectrum: Tensor) -> Tensor:
        real, imaginary = self.net(torch.cat([spectrum.real, spectrum.imag], dim=1)).chunk(2, dim=1)
        return torch.complex(real.contiguous(), imaginary.contiguous())


class SpectralUnit(_Spectral):
    """The Fourier unit of fast Fourier convolution: `ReLU(BN(W [Re X; Im X]))`, the spectrum not normalised.

    Real and imaginary part of a channel stand next to each other.
    """

    norm = "backward"

    def __init__(self, channels: int) -> None:
        super().__init__()
        both = 2 * channels
        self.net = nn.Sequential(nn.Conv2d(both, both, 1, bias=False), nn.BatchNorm2d(both), nn.ReLU(inplace=True))

    def filtered(self, spectrum: Tensor) -> Tensor:
        parts = torch.view_as_real(spectrum).movedim(-1, 2)  # [B, C, 2, h, w // 2 + 1]
        mixed = self.net(parts.flatten(1, 2)).unflatten(1, (-1, 2))
        return torch.complex(mixed[:, :, 0].contiguous(), mixed[:, :, 1].contiguous())


class SpectralGate(_Spectral):
    """Every frequency times a factor in 0..1 that depends on all channels' strengths: `sigmoid(W |X|) X`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1)

    def filtered(self, spectrum: Tensor) -> Tensor:
        return torch.sigmoid(self.gate(spectrum.abs())) * spectrum
