"""A trained model with what normal images decided about it: threshold, display scale, normal maps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kdlib.config import Fusion
from kdlib.contract import Distiller
from kdlib.data.records import ImageSet
from kdlib.runtime import Precision, Runtime, choose
from kdlib.scoring.calibration import Scale, Threshold, display_scale, threshold
from kdlib.scoring.evaluation import evaluate, fitting
from kdlib.scoring.normal_maps import FLOOR, FUSION, STRENGTH, NormalMaps, Tally

FOLDS = 5
FEWEST = 4
"""Calibration images that normal maps need."""


class Scorer(nn.Module):
    """A distiller in eval mode, whose level maps may be measured against those of normal images.

    Attributes:
        model: Trained.
        normal: Mean level maps of normal images; `None` leaves level maps as they are.
    """

    def __init__(self, model: Distiller, normal: NormalMaps | None = None) -> None:
        super().__init__()
        self.model, self.normal = model, normal
        self.eval()

    def anomaly_map(self, x: Tensor) -> Tensor:
        """Anomaly map [B, 1, H, W] of images `x` [B, 3, H, W]; higher is more anomalous."""
        if self.normal is None:
            return self.model.anomaly_map(x)
        return self.model.fuse(self.normal(self.model.level_maps(x)), x.shape[-2:], self.normal.fusion)

    def image_score(self, amap: Tensor) -> Tensor:
        """Image scores [B] of anomaly maps [B, 1, H, W]."""
        return self.model.image_score(amap)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Anomaly maps [B, 1, H, W] and image scores [B] of images `x` [B, 3, H, W]; what `torch.export` exports."""
        amap = self.anomaly_map(x)
        return amap, self.image_score(amap)

    def train(self, mode: bool = True) -> Scorer:
        """Stays in eval mode whatever `mode` is: what scores is never trained."""
        super().train(False)
        return self


class Detector(Scorer):
    """What one saves, loads and points at images.

    Attributes:
        size: Working height and width in pixels.
        threshold: Image scores above it are anomalous.
        scale: Brightness of every anomaly map it draws.
        precision: Type of the convolutions when the threshold was set; others give slightly other scores.
        white: The value of 16-bit grey files that becomes white; `None`: 65535.
    """

    def __init__(
        self,
        model: Distiller,
        size: tuple[int, int],
        threshold: Threshold,
        scale: Scale,
        *,
        precision: Precision = "fp32",
        normal: NormalMaps | None = None,
        white: int | None = None,
    ) -> None:
        super().__init__(model, normal)
        self.size, self.threshold, self.scale = size, threshold, scale
        self.precision, self.white = precision, white


def calibrate(
    model: Distiller,
    images: ImageSet,
    *,
    quantile: float = 0.95,
    maps: Literal["plain", "normal"] = "plain",
    floor: float = FLOOR,
    fusion: Fusion = FUSION,
    strength: float = STRENGTH,
    device: str = "auto",
    precision: str = "auto",
) -> Detector:
    """Makes a detector: threshold and display scale from held-out normal images.

    Args:
        model: A trained distiller.
        images: Normal images that training has not seen, the `calib` split.
        quantile: Share of normal images that should stay below the threshold.
        maps: `normal`: level maps are divided by the mean normal map of their place, as `run` has it; or `plain`, which
            may be better for parts that lie at any angle, above all with few images here. Images fit their own means
            better than new ones do: the threshold is set by scores that each fifth of the images gets from the means
            of the others.
        floor: For `normal`; see `kdlib.scoring.normal_maps.NormalMaps`.
        fusion: For `normal`; see there.
        strength: For `normal`; see there.
        device: See `kdlib.runtime.choose`.
        precision: See `kdlib.runtime.choose`; the detector keeps to the one chosen here.

    Raises:
        ValueError: If an image is anomalous or there are too few, `maps` is unknown, or level maps are no numbers.
    """
    _check_images(images, maps)
    runtime = choose(device, precision)
    normal: NormalMaps | None = None
    measured = [(images, Scorer(model))]
    if maps == "normal":
        settings = {"floor": floor, "fusion": fusion, "strength": strength}
        parts = [images.subset(range(first, len(images), FOLDS)) for first in range(min(FOLDS, len(images)))]
        tallies = [Tally.of(_level_maps(model, part, runtime)) for part in parts]
        normal = NormalMaps.fit(sum(tallies, Tally()), **settings)
        measured = []
        for i, part in enumerate(parts):
            others = sum(tallies[:i] + tallies[i + 1 :], Tally())
            measured.append((part, Scorer(model, NormalMaps.fit(others, **settings))))
    drawn = max(fitting(images.size) // 8 // len(measured), 1)  # enough for the scale of figures
    scores, kept = [], []
    for part, scorer in measured:
        keep = np.linspace(0, len(part) - 1, min(drawn, len(part))).round().astype(np.int64)
        seen = evaluate(scorer, part, keep=keep, device=str(runtime.device), precision=runtime.precision)
        scores.append(seen.scores)
        kept += list(seen.kept_maps)
    set_by, scale = threshold(np.concatenate(scores), quantile), display_scale(kept)
    return Detector(model, images.size, set_by, scale, precision=runtime.precision, normal=normal, white=images.white)


def _check_images(images: ImageSet, maps: str) -> None:
    if maps not in ("plain", "normal"):
        raise ValueError(f"maps is '{maps}'; expected plain or normal")
    if not len(images):
        raise ValueError("there are no calibration images; expected some normal images that training has not seen")
    if images.labels.any():
        raise ValueError(f"{int(images.labels.sum())} calibration images are anomalous; expected normal images only")
    if maps == "normal" and len(images) < FEWEST:
        raise ValueError(
            f"there are {len(images)} calibration images; maps='normal' needs {FEWEST} or more for mean maps: use "
            "maps='plain' or set more images aside"
        )


def _level_maps(model: Distiller, images: ImageSet, runtime: Runtime) -> Iterator[list[Tensor]]:
    """Level maps [B, 1, h, w], batch by batch."""
    runtime.prepare(model.eval())
    for items in DataLoader(images, 16):
        with torch.inference_mode(), runtime.autocast():
            levels = model.level_maps(runtime.images(items["image"]))
        yield levels
