"""Synthetic defects: a foreign texture, faint or strong, pasted into a normal image under a random mask."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kdlib.synthesis.colours import changed
from kdlib.synthesis.foreground import foreground
from kdlib.synthesis.perlin import perlin_mask
from kdlib.synthesis.textures import Rendered, Textures

_TRIES = 11
_FEWEST = 4  # pixels; a mask that has no more is drawn again


@dataclass(frozen=True, kw_only=True)
class Defects:
    """A view of a training image: `image -> {"defective", "mask", "foreground"}`.

    `x' = x (1 - M) + M ((1 - b) texture + b x)`, M a Perlin mask on the foreground, b in 0..`faintest`.

    Attributes:
        textures: What defects are made of.
        clean: Share of images that stay as they are, with an empty mask.
        faintest: Largest share of the image that still shows in a defect.
        on_foreground: Keep defects on the product; otherwise they may lie anywhere.

    Source: DRAEM (Zavrtanik et al., ICCV 2021) without its turned images; foreground, tries and shares are AAND's.
    """

    textures: Textures = field(default_factory=Rendered)
    clean: float = 0.2
    faintest: float = 0.8
    on_foreground: bool = True

    def __call__(self, image: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """A defective copy [3, H, W], its mask and its foreground, bool [1, H, W], of an image [3, H, W] in 0..1."""
        size = (image.shape[-2], image.shape[-1])
        product = foreground(image) if self.on_foreground else torch.ones(1, *size, dtype=torch.bool)
        if float(torch.rand((), generator=generator)) < self.clean:
            return {"defective": image, "mask": torch.zeros_like(product), "foreground": product}
        mask = self._mask(product, generator)
        texture = changed(self.textures(size, generator), generator)
        shown = self.faintest * torch.rand((), generator=generator)
        defect = torch.lerp(texture, image, shown)
        return {"defective": torch.where(mask, defect, image), "mask": mask, "foreground": product}

    def _mask(self, product: Tensor, generator: torch.Generator) -> Tensor:
        """A mask of more than a few pixels on the product, if one is found soon; else the last one drawn."""
        for _ in range(_TRIES):
            mask = perlin_mask((product.shape[-2], product.shape[-1]), generator) & product
            if mask.sum() > _FEWEST:
                break
        return mask
