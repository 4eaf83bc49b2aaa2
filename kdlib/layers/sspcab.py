"""SSPCAB: every position is predicted from its surroundings, its own value hidden, and channels are weighed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SSPCAB(nn.Module):
    """A masked convolution, channel attention, and the loss of a prediction.

        o o . . o o      o  four sub-kernels of `kernel` x `kernel` at the corners, C -> C, summed, ReLU
        o o . . o o      .  not looked at: a gap of `gap` positions between corner and centre, on both sides
        . . . x . .      x  the hidden centre
        (upper half, `kernel` 2, `gap` 1)

    Channel attention multiplies every channel by `sigmoid(W2 ReLU(W1 mean_p))`, W1: C -> C / `ratio`. Its mean over
    all positions contains the centre: it alone lets a trace of the hidden value through. The output is never negative.

    Source: Ristea et al., Self-Supervised Predictive Convolutional Attentive Block for Anomaly Detection, CVPR 2022,
    arXiv 2111.09099; written from its formulas. Zeros pad the map, the ReLU comes after the sum. At most C / `ratio`
    hidden units, at least 1, which the paper leaves open.

    Args:
        channels: Channels in and out.
        kernel: Side k' of a sub-kernel.
        gap: Positions d between a sub-kernel and the centre.
        ratio: Reduction r of the channel attention.
        attention: Weigh channels; without it the output is the masked convolution's.
        detach: The loss teaches the block alone, not what lies before it. As published it also moves the input.

    Raises:
        ValueError: If `kernel` or `ratio` is below 1, or `gap` below 0.
    """

    def __init__(
        self,
        channels: int,
        *,
        kernel: int = 1,
        gap: int = 1,
        ratio: int = 8,
        attention: bool = True,
        detach: bool = False,
    ) -> None:
        super().__init__()
        if min(kernel, ratio) < 1 or gap < 0:
            raise ValueError(
                f"kernel is {kernel}, ratio {ratio}, gap {gap}; expected kernel and ratio of 1 or more, gap of 0 or "
                "more"
            )
        self.gap, self.detach = gap, detach
        self.pad, self.apart = kernel + gap, kernel + 2 * gap + 1
        self.corners = nn.ModuleList(nn.Conv2d(channels, channels, kernel) for _ in range(4))
        hidden = max(channels // ratio, 1)
        self.squeeze = nn.Linear(channels, hidden) if attention else None
        self.stretch = nn.Linear(hidden, channels) if attention else None

    def forward(self, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The map [B, C, h, w] predicted for `z` [B, C, h, w], and the mean squared error of that as `prediction`."""
        predicted = self.weigh(self.predict(z))
        hidden = z.detach() if self.detach else z
        return predicted, {"prediction": F.mse_loss(predicted.float(), hidden.float())}

    def predict(self, z: Tensor) -> Tensor:
        """The masked convolution's output [B, C, h, w], after its ReLU.

        Raises:
            ValueError: If all corners of all positions lie outside of the map.
        """
        h, w = z.shape[-2:]
        if min(h, w) <= self.gap + 1:
            raise ValueError(
                f"SSPCAB looks {self.gap + 1} positions away and sees nothing of a map of {h} x {w}; choose a smaller "
                "gap or larger images"
            )
        padded = F.pad(z, [self.pad] * 4)
        below, right = padded.shape[-2] - self.apart, padded.shape[-1] - self.apart
        crops = (
            padded[..., :below, :right],
            padded[..., self.apart :, :right],
            padded[..., :below, self.apart :],
            padded[..., self.apart :, self.apart :],
        )
        return F.relu(torch.stack([conv(crop) for conv, crop in zip(self.corners, crops, strict=True)]).sum(0))

    def weigh(self, y: Tensor) -> Tensor:
        """Features [B, C, h, w], every channel times its attention in 0..1."""
        if self.squeeze is None or self.stretch is None:
            return y
        weights = torch.sigmoid(self.stretch(F.relu(self.squeeze(y.mean((2, 3))))))
        return y * weights[..., None, None]
