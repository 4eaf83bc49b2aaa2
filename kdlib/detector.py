"""A trained model with its threshold: what one saves, loads and points at images."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from kdlib import methods
from kdlib.calibrate import Scale, Threshold, display_scale, threshold
from kdlib.datasets.reading import open_image, resize_image
from kdlib.datasets.records import ImageSet
from kdlib.evaluate import evaluate, predict
from kdlib.methods.base import Distiller
from kdlib.runtime import runtime, versions
from kdlib.state import load_trained, read_tensors, trained_tensors, write_tensors

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor
WEIGHTS, CARD = "model.safetensors", "card.json"
FORMAT = 1


@dataclass(frozen=True)
class Detector:
    """A distiller, the size it works at, and what normal images decided about it.

    Attributes:
        model: Trained, in eval mode.
        size: Working height and width in pixels.
        threshold: Image scores above it are anomalous.
        scale: Brightness of every anomaly map it draws.
    """

    model: Distiller
    size: tuple[int, int]
    threshold: Threshold
    scale: Scale

    def anomaly_map(self, x: Tensor) -> Tensor:
        """See :meth:`kdlib.methods.base.Distiller.anomaly_map`."""
        return self.model.anomaly_map(x)

    def image_score(self, amap: Tensor) -> Tensor:
        """See :meth:`kdlib.methods.base.Distiller.image_score`."""
        return self.model.image_score(amap)

    def card(self) -> dict[str, Any]:
        """Everything needed to build the detector again and to know where it comes from."""
        return {
            "format": FORMAT,
            "method": self.model.name,
            "config": asdict(self.model.config),
            "teacher": {"name": self.model.teacher.name, "weights": str(self.model.teacher.weights)},
            "strides": list(self.model.teacher.strides),
            "size": list(self.size),
            "threshold": asdict(self.threshold),
            "scale": asdict(self.scale),
            "versions": versions(),
        }


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a detector says about images.

    Attributes:
        scores: One per image [N], higher is more anomalous.
        maps: Anomaly maps [N, H, W] at the detector's working size.
        anomalous: Whether each score lies above the threshold [N].
    """

    scores: NDArray[np.float32]
    maps: NDArray[np.float32]
    anomalous: NDArray[np.bool_]


def calibrate(
    model: Distiller, images: ImageSet, *, quantile: float = 0.95, device: str = "auto", precision: str = "auto"
) -> Detector:
    """Makes a detector: threshold and display scale from held-out normal images.

    Args:
        model: A trained distiller.
        images: Normal images that training has not seen, the ``calib`` split.
        quantile: Share of normal images that should stay below the threshold.
        device: See :func:`kdlib.runtime.runtime`.
        precision: See :func:`kdlib.runtime.runtime`.

    Raises:
        ValueError: If an image is anomalous or there is none.
    """
    if images.labels.any():
        raise ValueError(f"{int(images.labels.sum())} calibration images are anomalous; expected normal images only")
    seen = evaluate(model, images, device=device, precision=precision)
    return Detector(model, images.size, threshold(seen.scores, quantile), display_scale(seen.maps))


def score(
    detector: Detector,
    images: ImageLike | Sequence[ImageLike],
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 16,
) -> Verdict:
    """Scores images of any kind and size.

    Args:
        detector: From :func:`calibrate` or :func:`load`.
        images: A path, a PIL image, an array (uint8 [H, W], [H, W, 3], or float in 0..1), a tensor ([3, H, W] or
            [B, 3, H, W], uint8 or float in 0..1), or a list of these.
        device: See :func:`kdlib.runtime.runtime`.
        precision: See :func:`kdlib.runtime.runtime`.
        batch_size: Images at a time.

    Raises:
        ValueError: If an image cannot be read or understood, or the list is empty.
    """
    if isinstance(images, Tensor) and images.ndim == 4:
        images = list(images)
    elif not isinstance(images, (list, tuple)):
        images = [images]  # type: ignore[list-item]
    if not images:
        raise ValueError("there are no images to score; expected at least one")
    how = runtime(device, precision)
    how.prepare(detector.model.eval())
    parts = []
    for i in range(0, len(images), batch_size):
        x = torch.stack([_as_input(image, detector.size) for image in images[i : i + batch_size]])
        parts.append(predict(detector, x, how))
    scores = torch.cat([s for _, s in parts]).numpy()
    return Verdict(
        scores=scores,
        maps=torch.cat([m for m, _ in parts]).numpy(),
        anomalous=detector.threshold.decide(scores),
    )


def save(detector: Detector, folder: str | Path) -> Path:
    """Writes the trained weights (safetensors) and a card (JSON) into a folder, each whole or not at all.

    The teacher's weights are not copied; the card names them.
    """
    folder = Path(folder)
    card = detector.card()
    write_tensors(folder / WEIGHTS, trained_tensors(detector.model), {"card": card})
    write_text(folder / CARD, json.dumps(card, indent=2) + "\n")
    return folder


def load(folder: str | Path, *, weights: str = "auto") -> Detector:
    """Reads what :func:`save` wrote.

    Args:
        folder: The folder of the saved detector.
        weights: Where the teacher's weights come from; see :func:`kdlib.backbones.teacher`.

    Raises:
        ValueError: If files are missing, damaged, foreign, of a newer format, or the teacher's weights are others than
            those the student learned from.
    """
    folder = Path(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(
            f"no detector in '{folder}': '{WEIGHTS}' is missing; expected a folder written by kdlib's save()"
        )
    tensors, meta = read_tensors(path)
    card = meta.get("card")
    if not card or card.get("format") != FORMAT:
        raise ValueError(f"'{path}' is no detector of format {FORMAT}; save it with this version of kdlib")
    config = {k: tuple(v) if isinstance(v, list) else v for k, v in card["config"].items()}
    if weights != "auto":
        config["weights"] = weights
    model = methods.build(card["method"], **config)
    if str(model.teacher.weights) != card["teacher"]["weights"]:
        raise ValueError(
            f"'{folder}' was trained with teacher weights {card['teacher']['weights']}, but here the teacher would have "
            f"{model.teacher.weights}; pass weights=... to name the right ones"
        )
    load_trained(model, tensors)
    height, width = card["size"]
    return Detector(model.eval(), (height, width), Threshold(**card["threshold"]), Scale(**card["scale"]))


def write_text(path: Path, text: str) -> None:
    """Writes a text file beside its target, then renames: it is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def _as_input(image: ImageLike, size: tuple[int, int]) -> Tensor:
    """An image of any kind as float32 RGB [3, H, W] in 0..1 at the working size."""
    if isinstance(image, (str, os.PathLike)):
        return resize_image(open_image(Path(image)), size).float() / 255
    if isinstance(image, Image.Image):
        return resize_image(image.convert("RGB"), size).float() / 255
    if isinstance(image, np.ndarray):
        image = (
            TF.to_image(image) if image.dtype == np.uint8 or image.ndim == 2 else torch.from_numpy(image).movedim(-1, 0)
        )
    if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] not in (1, 3):
        found = f"shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise ValueError(
            f"cannot read an image from {found}; expected a path, PIL image, [H, W], [H, W, 3] or [3, H, W]"
        )
    x = image.float() / 255 if image.dtype == torch.uint8 else image.float()
    if not (torch.isfinite(x).all() and float(x.min()) >= 0 and float(x.max()) <= 1):
        raise ValueError(f"image values span {x.min():.3g} to {x.max():.3g}; expected uint8, or floats in 0..1")
    return TF.resize(x.expand(3, -1, -1), list(size), antialias=True)
