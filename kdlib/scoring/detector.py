"""A trained model with its threshold: what one saves, loads and points at images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdlib import methods
from kdlib.contract import Distiller
from kdlib.data.records import ImageSet
from kdlib.files import read_tensors, write_tensors, write_text
from kdlib.runtime import choose, versions
from kdlib.scoring.calibration import Scale, Threshold, display_scale, threshold
from kdlib.scoring.evaluation import evaluate, predict
from kdlib.scoring.inputs import ImageLike, as_input, as_list

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
        """See `kdlib.contract.Distiller.anomaly_map`."""
        return self.model.anomaly_map(x)

    def image_score(self, amap: Tensor) -> Tensor:
        """See `kdlib.contract.Distiller.image_score`."""
        return self.model.image_score(amap)

    def card(self) -> dict[str, Any]:
        """Everything needed to build the detector again and to know where it comes from."""
        return {
            "format": FORMAT,
            "method": self.model.name,
            "config": asdict(self.model.config),
            "teacher": {
                "name": self.model.teacher.name,
                "weights": str(self.model.teacher.weights),
                "sha256": self.model.teacher.fingerprint(),
            },
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
        images: Normal images that training has not seen, the `calib` split.
        quantile: Share of normal images that should stay below the threshold.
        device: See `kdlib.runtime.runtime`.
        precision: See `kdlib.runtime.runtime`.

    Raises:
        ValueError: If an image is anomalous or there is none.
    """
    if not len(images):
        raise ValueError("there are no calibration images; expected some normal images that training has not seen")
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
        detector: From `calibrate` or `load`.
        images: A path, a PIL image, an array ([H, W] or [H, W, 3], 8 or 16 bits or float in 0..1), a tensor
            ([3, H, W] or [1, H, W], uint8 or float in 0..1), a stack of arrays or tensors, or a list of these.
            All are resized alike; floats of another than the working size are rounded to 8 bits before.
        device: See `kdlib.runtime.runtime`.
        precision: See `kdlib.runtime.runtime`.
        batch_size: Images at a time.

    Raises:
        ValueError: If an image cannot be read or understood, or the list is empty.
    """
    several = as_list(images)
    if not several:
        raise ValueError("there are no images to score; expected at least one")
    how = choose(device, precision)
    how.prepare(detector.model.eval())
    parts = []
    for i in range(0, len(several), batch_size):
        x = torch.stack([as_input(image, detector.size) for image in several[i : i + batch_size]])
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
    write_tensors(folder / WEIGHTS, detector.model.trained_tensors(), {"card": card})
    write_text(folder / CARD, json.dumps(card, indent=2) + "\n")
    return folder


def load(folder: str | Path, *, weights: str | Path = "auto") -> Detector:
    """Reads what `save` wrote.

    Args:
        folder: The folder of the saved detector.
        weights: Where the teacher's weights come from; see `kdlib.teachers.teacher`.

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
    if not isinstance(card, dict):
        raise ValueError(f"'{path}' is no detector: its header has no card; expected a file written by kdlib's save()")
    if card.get("format") != FORMAT:
        raise ValueError(
            f"'{path}' has format {card.get('format')}, this kdlib reads {FORMAT}; load it with the version that saved "
            f"it: {card.get('versions')}"
        )
    try:
        return _from_card(card, tensors, weights)
    except (KeyError, TypeError) as error:
        raise ValueError(f"'{path}' has an incomplete card ({error!r}); save the detector anew") from error


def _from_card(card: dict[str, Any], tensors: dict[str, Tensor], weights: str | Path) -> Detector:
    config: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in card["config"].items()}
    if weights != "auto":
        config["weights"] = weights
    model = methods.build(card["method"], **config)
    expected = card["teacher"]
    if model.teacher.fingerprint() != expected["sha256"]:
        raise ValueError(
            f"the detector was trained with teacher weights {expected['weights']}, here the teacher has "
            f"{model.teacher.weights}, which are others; pass weights=... to name the right ones"
        )
    model.load_trained(tensors)
    height, width = card["size"]
    return Detector(model.eval(), (height, width), Threshold(**card["threshold"]), Scale(**card["scale"]))
