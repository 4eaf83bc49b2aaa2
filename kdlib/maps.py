"""From level maps to an anomaly map and an image score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlib.config import Fusion

_FUSE: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda levels: levels.sum(0),
    "mean": lambda levels: levels.mean(0),
    "product": lambda levels: levels.prod(0),
    "max": lambda levels: levels.amax(0),
}


def resized(levels: Sequence[Tensor], size: Sequence[int], *, align_corners: bool = False) -> Tensor:
    """Level maps, brought to one size.

    Args:
        levels: A map [B, 1, h, w] per level.
        size: Height and width of the result in pixels.
        align_corners: Convention of the bilinear resize. STPM's code uses False, RD4AD's True; they differ by up to
            half a feature cell.

    Returns:
        [L, B, 1, H, W].
    """
    options = {"size": tuple(size), "mode": "bilinear", "align_corners": align_corners}
    return torch.stack([F.interpolate(level, **options) for level in levels])  # type: ignore[arg-type]


def fuse(
    levels: Sequence[Tensor],
    size: Sequence[int],
    *,
    fusion: Fusion = "sum",
    blur: float = 4.0,
    align_corners: bool = False,
) -> Tensor:
    """Anomaly map [B, 1, H, W]: level maps, fused over levels, then blurred.

    Args:
        levels: A map [B, 1, h, w] per level, each at its own size.
        size: Height and width of the images in pixels.
        fusion: `sum` and `mean` keep a defect seen at one level, `product` wants all levels to agree.
        blur: Standard deviation of the Gaussian in pixels of a 256 px image; scales with the image. 0 switches it off.
        align_corners: See `resized`.
    """
    if fusion not in _FUSE:
        raise ValueError(f"unknown fusion '{fusion}'; expected one of {sorted(_FUSE)}")
    amap = _FUSE[fusion](resized(levels, size, align_corners=align_corners))
    return gaussian_blur(amap, blur * min(size) / 256)


def gaussian_blur(amap: Tensor, sigma: float) -> Tensor:
    """Separable Gaussian blur of maps [B, 1, H, W], truncated at four sigma, edges reflected.

    Equals `scipy.ndimage.gaussian_filter` in its default mode, on any device.
    """
    if sigma <= 0:
        return amap
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, device=amap.device, dtype=amap.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    # Under autocast this convolution would run in half precision and round the scores.
    with torch.autocast(amap.device.type, enabled=False):
        for axis in (2, 3):
            index = _reflected(amap.shape[axis], radius, amap.device)
            shape = [1, 1, -1, 1] if axis == 2 else [1, 1, 1, -1]
            amap = F.conv2d(amap.index_select(axis, index), kernel.view(shape))
    return amap


def image_score(amap: Tensor, top_k: int = 1, margin: float = 0.0) -> Tensor:
    """One score per image [B] from maps [B, 1, H, W]: the mean of the `top_k` largest pixels (1: the maximum).

    Args:
        amap: Anomaly maps.
        top_k: How many pixels are averaged.
        margin: Rim that does not count, in pixels of a 256 px image; scales with the image.
    """
    h, w = amap.shape[-2:]
    rim = round(margin * min(h, w) / 256)
    flat = amap[..., rim : h - rim, rim : w - rim].flatten(1)
    if not 1 <= top_k <= flat.shape[1]:
        raise ValueError(f"top_k is {top_k}; expected 1 to the {flat.shape[1]} pixels of the map inside its margin")
    return flat.amax(1) if top_k == 1 else flat.topk(top_k, dim=1).values.mean(1)


def _reflected(length: int, radius: int, device: torch.device) -> Tensor:
    """Indices that continue an axis past both edges like a mirror: d c b a | a b c d | d c b a."""
    position = torch.arange(-radius, length + radius, device=device).remainder(2 * length)
    return torch.minimum(position, 2 * length - 1 - position)
