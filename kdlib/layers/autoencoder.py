"""The autoencoder of EfficientAD: an image through 64 numbers and back to a map of features.

    H --5 halvings--> H/32 --8x8--> 1 --> H/64 - 1 --> H/32 --> H/16 - 1 --> H/8 --> H/4 - 1 --> H/2 - 1 --> map

Whatever the size of the image, what the decoder sees is one vector: it must know where parts belong. There are no
connections around it. The paper's images have 256 px; others are averaged onto the same 8 x 8 positions before the last
layer of the encoder.

Source: Batzner, Heckler, König. EfficientAD. WACV 2024, tables 8 and 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

MULTIPLE = 32
DROPOUT = 0.2
_NARROW, _WIDE = 32, 64
_GRID = 8  # positions in height and width in front of the encoder's last layer


class AutoEncoder(nn.Module):
    """Predicts a map of features [B, channels, h, w] from normalised images [B, 3, H, W].

    Args:
        channels: Of the map.
        width: Channels of the layers, as a share of the paper's.
        dropout: Share of the decoder's values that training leaves out.
    """

    def __init__(self, channels: int, width: float = 1.0, dropout: float = DROPOUT) -> None:
        super().__init__()
        narrow, wide = (max(1, round(width * n)) for n in (_NARROW, _WIDE))
        widths = (3, narrow, narrow, wide, wide, wide)
        self.halvings = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.squeeze = nn.Conv2d(wide, wide, _GRID)
        self.doublings = nn.ModuleList(nn.Conv2d(wide, wide, 4, padding=2) for _ in range(6))
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Sequential(
            nn.Conv2d(wide, wide, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(wide, channels, 3, padding=1)
        )

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """The map, of height and width `size`.

        Raises:
            ValueError: If height and width of the images are no multiples of 32.
        """
        height, width = x.shape[-2:]
        if height % MULTIPLE or width % MULTIPLE:
            raise ValueError(
                f"images are {height} x {width} px; the autoencoder halves them five times: choose multiples of "
                f"{MULTIPLE}, such as 256"
            )
        z = self.encode(x)
        for (h, w), doubling in zip(zip(sizes(height), sizes(width), strict=True), self.doublings, strict=True):
            z = self.dropout(F.relu(doubling(_resized(z, (h, w)))))
        return self.last(_resized(z, size))

    def encode(self, x: Tensor) -> Tensor:
        """What is left of the images: one vector each, [B, wide, 1, 1]."""
        for halving in self.halvings:
            x = F.relu(halving(x))
        return self.squeeze(F.adaptive_avg_pool2d(x, _GRID) if x.shape[-2:] != (_GRID, _GRID) else x)


def sizes(length: int) -> tuple[int, ...]:
    """Height or width to which the decoder resizes its map in front of each layer, for images of this length."""
    shares = ((64, 1), (32, 0), (16, 1), (8, 0), (4, 1), (2, 1))
    return tuple(max(1, length // part - less) for part, less in shares)


def _resized(z: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(z, size=tuple(size), mode="bilinear", align_corners=False)
