"""Images under another light: what keeps a network from learning the lamp."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as colours

_CHANGES = (colours.adjust_brightness, colours.adjust_contrast, colours.adjust_saturation)


def recoloured(image: Tensor, generator: torch.Generator, by: float) -> dict[str, Tensor]:
    """An image [3, H, W] in 0..1 whose brightness, contrast or saturation is changed by up to a share; a view."""
    change = _CHANGES[int(torch.randint(len(_CHANGES), (), generator=generator))]
    factor = 1 + by * (2 * float(torch.rand((), generator=generator)) - 1)
    return {"recoloured": change(image, factor)}
