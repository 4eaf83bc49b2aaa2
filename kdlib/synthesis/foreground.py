"""Which part of an image shows the product: a rule that looks at one image and knows no list of categories."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

SIDE = 64  # positions along the shorter side on which the rule works, so that noise does not count
RIM = 0.04  # share of the sides that is taken for the background
OUTLIERS = 0.02  # share of the rim that may be anything
FACTOR = 1.3  # how much farther than the rim's own colours a product's must be
REACH = 3  # positions; gaps of less than twice this are closed
SMALLEST = 0.1  # share of the image; less is no product


def foreground(image: Tensor) -> Tensor:
    """The product in an image [3, H, W] in 0..1, as a mask, bool [1, H, W]; the whole image where nothing frames it.

    The background is what continues the rim's colours, which may change slowly, as light does. What differs from it
    clearly more than the rim itself does is product, and so is what that encloses. A texture differs hardly anywhere
    more than at its rim: then all of the image counts.

    Source: the course's own. AAND's code has a table of thresholds, one rule for each category of three data sets.
    """
    size = image.shape[-2:]
    h, w = (max(1, round(n * min(1, SIDE / min(size)))) for n in size)
    pixels = F.adaptive_avg_pool2d(image, (h, w)).numpy()
    rim = _rim(h, w)
    distance = np.linalg.norm(pixels - _continued(pixels, rim), axis=0)
    found = distance > FACTOR * np.quantile(distance[rim], 1 - OUTLIERS)
    found = ndimage.binary_fill_holes(_closed(found))
    if found.mean() < SMALLEST:
        found = np.ones_like(found)
    return F.interpolate(torch.from_numpy(found)[None, None].float(), size=size)[0] > 0.5


def _continued(pixels: npt.NDArray[np.float32], rim: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Colours [3, H, W] of a surface of second degree through those of the rim."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n, dtype=np.float32) for n in rim.shape), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * y, x * x, y * y])
    weights = np.linalg.lstsq(terms[:, rim].T, pixels[:, rim].T, rcond=None)[0]
    return np.asarray(np.einsum("tc,thw->chw", weights, terms))


def _closed(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """A mask in which narrow gaps are closed."""
    near = ndimage.distance_transform_edt(~np.pad(mask, REACH)) <= REACH
    return np.asarray(ndimage.distance_transform_edt(near) > REACH)[REACH:-REACH, REACH:-REACH]


def _rim(h: int, w: int) -> npt.NDArray[np.bool_]:
    rows, columns = (max(1, round(RIM * n)) for n in (h, w))
    rim = np.ones((h, w), dtype=bool)
    rim[rows : h - rows, columns : w - columns] = False
    return rim
