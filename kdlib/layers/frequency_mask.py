"""DNP-KD's frequency masks: per category a learnable gain for every channel and spatial frequency of a feature map."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Spectrum = Literal["complex", "real_only"]


class FrequencyMask(nn.Module):
    """Gains `sigmoid(logits)` in 0..1 on the spectrum of features [B, C, h, w]; a fresh mask halves everything.

    The published code keeps a gain for each of the h x w frequencies. The features are real, so their spectrum is
    Hermitian, and only the mean gain of two opposite frequencies has an effect: half a spectrum of gains (`rfft2`)
    filters identically and learns identically, because opposite gains get equal gradients.

    Before `resize` there is one category with one gain per channel. Features of another size than the mask's get
    at each frequency, in cycles per position, the gain of the nearest frequency that the mask has.

    Args:
        channels: Channels of the features.

    Attributes:
        logits: [categories, C, h, w // 2 + 1], frequencies in the order of `torch.fft.rfft2`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def resize(self, categories: int, height: int, width: int) -> None:
        """Makes a mask per category for features of this size; a mask that has these sizes keeps what it learned."""
        shape = (categories, self.logits.shape[1], height, width // 2 + 1)
        if self.logits.shape != shape:
            # A new parameter: a graph that still holds the old one would give it gradients of the old shape.
            self.logits = nn.Parameter(self.logits.detach().new_zeros(shape))

    def forward(self, category: Tensor, height: int, width: int) -> Tensor:
        """Gains [B, C, h, w // 2 + 1] of each image's category [B] for features of this size."""
        logits: Tensor = self.logits
        rows, columns = logits.shape[-2:]
        if (rows, columns) != (height, width // 2 + 1):
            vertical = torch.fft.fftfreq(height, device=logits.device)
            horizontal = torch.fft.rfftfreq(width, device=logits.device)
            nearest_row = (vertical * rows).round().long() % rows
            nearest_column = (horizontal * 2 * (columns - 1)).round().long()
            logits = logits.index_select(2, nearest_row).index_select(3, nearest_column)
        # Masks in channels_last, which a loaded model has, would change the last bit of the result.
        return logits.float().contiguous().sigmoid().index_select(0, category)


def filtered(x: Tensor, gains: Tensor, spectrum: Spectrum = "complex") -> Tensor:
    """Features [B, C, h, w] with gains [B, C, h, w // 2 + 1] applied to their spectrum.

    The transform runs in float32; type and memory layout of the result are those of `x`.

    Args:
        x: Features.
        gains: One per channel and frequency.
        spectrum: `complex` filters. `real_only` drops the spectrum's imaginary part as well, as the published code
            does: What is filtered then is the mean of the features and their reflection `x[-i mod h, -j mod w]`.
    """
    found = torch.fft.rfft2(x.float())
    kept = torch.fft.irfft2((found if spectrum == "complex" else found.real) * gains, s=x.shape[-2:])
    # First the type, then the layout: half the bytes to move.
    rows = x.is_contiguous(memory_format=torch.channels_last)
    return kept.to(x.dtype).contiguous(memory_format=torch.channels_last if rows else torch.contiguous_format)


def full_l1(gains: Tensor, width: int) -> Tensor:
    """Sum of the gains of each image [B] over channels and the full spectrum, of which `gains` are a half.

    Every column stands for itself and its opposite, but for frequency 0 and, where `width` is even, the highest.
    """
    columns = gains.sum((1, 2))
    own = columns[:, 0] + columns[:, -1] if width % 2 == 0 else columns[:, 0]
    return 2 * columns.sum(1) - own
