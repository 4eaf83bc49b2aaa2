"""What a detector says about images of any kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kdlib.config import check_kind
from kdlib.runtime import choose
from kdlib.scoring.detector import Detector
from kdlib.scoring.evaluation import predict
from kdlib.scoring.inputs import ImageLike, as_list, decoded, resized, size_of


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a detector says about images.

    Attributes:
        scores: One per image [N], higher is more anomalous.
        maps: Anomaly maps [N, H, W] at the detector's working size, or a list of [H, W], each at its image's own size.
        anomalous: Whether each score lies above the threshold [N].
    """

    scores: NDArray[np.float32]
    maps: NDArray[np.float32] | list[NDArray[np.float32]]
    anomalous: NDArray[np.bool_]


def score(
    detector: Detector,
    images: ImageLike | Sequence[ImageLike],
    *,
    full_size: bool = False,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 16,
) -> Verdict:
    """Scores images of any kind and size.

    Args:
        detector: From `calibrate` or `load`.
        images: A path, the bytes of an image file, a PIL image, an array ([H, W] or [H, W, 3], 8 or 16 bits or float
            in 0..1), a tensor ([3, H, W] or [1, H, W], uint8 or float in 0..1), a stack of arrays or tensors, or a
            list of these. All are resized alike; floats of another than the working size are rounded to 8 bits
            before, 16-bit grey is scaled by the white level of the calibration images.
        full_size: Give each map at its image's own height and width, enlarged bilinearly; scores stay the same.
        device: See `kdlib.runtime.choose`.
        precision: `auto`, that of the calibration, for which the threshold holds; or see `kdlib.runtime.choose`.
        batch_size: Images at a time.

    Raises:
        ValueError: If an image cannot be read or understood, the list is empty, `batch_size` is below 1, or a map or
            score is NaN or infinite.
    """
    check_kind("detector", detector, Detector, "a Detector as kd.calibrate or kd.load give")
    several = as_list(images)
    if not several:
        raise ValueError("there are no images to score; expected at least one")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected 1 or more images at a time")
    runtime = choose(device, detector.precision if precision == "auto" else precision)
    runtime.prepare(detector.eval())
    scores: list[float] = []
    maps: list[NDArray[np.float32]] = []
    for first in range(0, len(several), batch_size):
        pictures = [decoded(image, detector.white) for image in several[first : first + batch_size]]
        x = torch.stack([resized(picture, detector.size) for picture in pictures])
        amaps, found = predict(detector, x, runtime, [f"image {first + i}" for i in range(len(pictures))])
        scores += found.tolist()
        for amap, picture in zip(amaps, pictures, strict=True):
            maps.append(_enlarged(amap, size_of(picture)) if full_size else amap.numpy())
    return Verdict(
        scores=np.array(scores, dtype=np.float32),
        maps=maps if full_size else np.stack(maps),
        anomalous=detector.threshold.decide(scores),
    )


def _enlarged(amap: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    """A map [h, w] at another size [H, W]."""
    if amap.shape != torch.Size(size):
        amap = F.interpolate(amap[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    return amap.numpy()
