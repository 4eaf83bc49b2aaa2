"""A trained model with what normal images decided about it: threshold, display scale, normal maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kdlib.config import Fusion, check_kind
from kdlib.contract import Distiller
from kdlib.data.records import ImageSet
from kdlib.runtime import Precision, Runtime, choose
from kdlib.scoring.calibration import Scale, Threshold, display_scale, threshold
from kdlib.scoring.evaluation import evaluate, fitting
from kdlib.scoring.normal_maps import FLOOR, FUSION, By, NormalMaps, Tally
from kdlib.scoring.whitening import Moments, Whitening

Maps = Literal["plain", "normal", "whitened"]
FOLDS = 5
WHITENED = {"strength": 0.5, "by": "rim"}
"""How whitened level maps are divided, where nobody says otherwise; others as `NormalMaps` has it."""
FEWEST = 4
"""Calibration images that normal maps need."""


class Scorer(nn.Module):
    """A distiller in eval mode, whose level maps may be measured against those of normal images.

    Attributes:
        model: Trained.
        normal: Mean level maps of normal images; `None` leaves level maps as they are.
        whitening: Which directions of residuals are usual on normal images; `None` takes the method's distances.

    Raises:
        ValueError: If `model` is something else.
    """

    def __init__(self, model: Distiller, normal: NormalMaps | None = None, whitening: Whitening | None = None) -> None:
        super().__init__()
        check_kind("model", model, Distiller, "a distiller as kd.build gives")
        self.model, self.normal, self.whitening = model, normal, whitening
        self.eval()

    def level_maps(self, x: Tensor) -> list[Tensor]:
        """A map [B, 1, h, w] per level of images `x` [B, 3, H, W], whitened, not yet divided by normal maps."""
        return self.whitening(self.model.residuals(x)) if self.whitening else self.model.level_maps(x)

    def anomaly_map(self, x: Tensor) -> Tensor:
        """Anomaly map [B, 1, H, W] of images `x` [B, 3, H, W]; higher is more anomalous."""
        if self.normal is None:
            return self.model.anomaly_map(x)
        return self.model.fuse(self.normal(self.level_maps(x)), x.shape[-2:], self.normal.fusion)

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
        whitening: Whitening | None = None,
        white: int | None = None,
    ) -> None:
        super().__init__(model, normal, whitening)
        self.size, self.threshold, self.scale = size, threshold, scale
        self.precision, self.white = precision, white


def calibrate(
    model: Distiller,
    images: ImageSet,
    *,
    quantile: float = 0.95,
    maps: Maps = "plain",
    floor: float = FLOOR,
    fusion: Fusion = FUSION,
    strength: float | None = None,
    by: By | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> Detector:
    """Makes a detector: threshold and display scale from held-out normal images.

    Args:
        model: A trained distiller.
        images: Normal images that training has not seen, the `calib` split.
        quantile: Share of normal images that should stay below the threshold.
        maps: `plain`: level maps as the method has them; `normal`: they are divided by the mean normal map of their
            place; `whitened`: the same after the directions of residuals were weighed by how usual they are, see
            `kdlib.scoring.whitening`. `model.recommended` is what `run` takes where the method whitens. Images fit
            their own statistics better than new ones do: the threshold is set by scores that each fifth of the images
            gets from the statistics of the others.
        floor: For all but `plain`; see `kdlib.scoring.normal_maps.NormalMaps`.
        fusion: For all but `plain`; see there.
        strength: See there; `None`: as tuning images chose, 1 for normal maps, 0.5 for whitened ones.
        by: See there; `None`: as tuning images chose, `place` for normal maps, `rim` for whitened ones.
        device: See `kdlib.runtime.choose`.
        precision: See `kdlib.runtime.choose`; the detector keeps to the one chosen here.

    Raises:
        ValueError: If an image is anomalous or there are too few, `maps` is unknown or not possible for the method, or
            level maps are no numbers.
    """
    check_kind("model", model, Distiller, "a distiller as kd.build gives, trained by kd.fit")
    check_kind("images", images, ImageSet, "an image set, such as data.calib")
    _check_images(images, maps)
    if maps == "whitened" and not model.whitens:
        raise ValueError(
            f"maps of '{model.name}' as it is configured are no distances between features; take maps='normal'"
        )
    runtime = choose(device, precision)
    settings: dict[str, Any] = {"floor": floor, "fusion": fusion, **(WHITENED if maps == "whitened" else {})}
    settings |= {name: value for name, value in (("strength", strength), ("by", by)) if value is not None}
    whole, measured = Scorer(model), [(images, Scorer(model))]
    if maps != "plain":
        parts = [images.subset(range(first, len(images), FOLDS)) for first in range(min(FOLDS, len(images)))]
        whole, *others = _measuring(model, parts, runtime, maps == "whitened", settings)
        measured = list(zip(parts, others, strict=True))
    drawn = max(fitting(images.size) // 8 // len(measured), 1)  # enough for the scale of figures
    scores, kept = [], []
    for part, scorer in measured:
        keep = np.linspace(0, len(part) - 1, min(drawn, len(part))).round().astype(np.int64)
        seen = evaluate(scorer, part, keep=keep, device=str(runtime.device), precision=runtime.precision)
        scores.append(seen.scores)
        kept += list(seen.kept_maps)
    set_by, scale = threshold(np.concatenate(scores), quantile), display_scale(kept)
    detector = Detector(
        model,
        images.size,
        set_by,
        scale,
        precision=runtime.precision,
        normal=whole.normal,
        whitening=whole.whitening,
        white=images.white,
    )
    runtime.prepare(detector)
    return detector


def _check_images(images: ImageSet, maps: str) -> None:
    if maps not in get_args(Maps):
        raise ValueError(f"maps is '{maps}'; expected one of {', '.join(get_args(Maps))}")
    if not len(images):
        raise ValueError("there are no calibration images; expected some normal images that training has not seen")
    if images.labels.any():
        raise ValueError(f"{int(images.labels.sum())} calibration images are anomalous; expected normal images only")
    if maps != "plain" and len(images) < FEWEST:
        raise ValueError(
            f"there are {len(images)} calibration images; maps='{maps}' needs {FEWEST} or more for mean maps: use "
            "maps='plain' or set more images aside"
        )


def _measuring(
    model: Distiller, parts: Sequence[ImageSet], runtime: Runtime, whiten: bool, settings: Mapping[str, Any]
) -> list[Scorer]:
    """A scorer that all parts of a set have measured, then for each part the one that the others have measured."""
    groups = [list(range(len(parts))), *([i for i in range(len(parts)) if i != left] for left in range(len(parts)))]
    if not whiten:
        tallies = [Tally.of(_seen(model.level_maps, model, part, runtime)) for part in parts]
        return [
            Scorer(model, NormalMaps.fit(sum((tallies[i] for i in group), Tally()), **settings)) for group in groups
        ]
    moments = [Moments.of(_seen(model.residuals, model, part, runtime)) for part in parts]
    whitenings = [Whitening.fit(sum((moments[i] for i in group), Moments())) for group in groups]
    runtime.prepare(nn.ModuleList(whitenings))
    scorers = [Scorer(model, whitening=whitening) for whitening in whitenings]
    tallies = [Tally() for _ in groups]
    for i, part in enumerate(parts):
        for residuals in _seen(model.residuals, model, part, runtime):
            for k, whitening in enumerate(whitenings):
                if i in groups[k]:
                    tallies[k] += Tally.of([whitening(residuals)])
    for scorer, tally in zip(scorers, tallies, strict=True):
        scorer.normal = NormalMaps.fit(tally, **settings)
    return scorers


def _seen(
    view: Callable[[Tensor], list[Tensor]], module: nn.Module, images: ImageSet, runtime: Runtime
) -> Iterator[list[Tensor]]:
    """What a method of a module makes of images, batch by batch."""
    runtime.prepare(module.eval())
    for items in DataLoader(images, 16):
        with torch.inference_mode(), runtime.autocast():
            seen = view(runtime.images(items["image"]))
        yield seen
