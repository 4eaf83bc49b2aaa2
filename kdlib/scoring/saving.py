"""Detectors in folders: trained tensors as safetensors with a card in their header, and the card as JSON to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdlib import methods
from kdlib.contract import Distiller
from kdlib.files import read_tensors, write_tensors, write_text
from kdlib.scoring import card as cards
from kdlib.scoring.card import FORMAT, Card
from kdlib.scoring.detector import Detector
from kdlib.scoring.normal_maps import NormalMaps

WEIGHTS, CARD = "model.safetensors", "card.json"


def save(detector: Detector, folder: str | Path) -> Path:
    """Writes the trained weights (safetensors) and a card (JSON) into a folder, each whole or not at all.

    The teacher's weights are not copied; the card names them. `load` reads the card in the header of the weights;
    `card.json` is a copy for people.
    """
    folder = Path(folder)
    tensors = {f"model.{name}": tensor for name, tensor in detector.model.trained_tensors().items()}
    if detector.normal:
        tensors |= {f"normal.{name}": tensor for name, tensor in detector.normal.state_dict().items()}
    card = cards.describe(detector, tensors)
    write_tensors(folder / WEIGHTS, tensors, {"card": card})
    write_text(folder / CARD, json.dumps(card, indent=2) + "\n")
    return folder


def load(folder: str | Path, *, weights: str | Path | None = None) -> Detector:
    """Reads what `save` wrote.

    Args:
        folder: The folder of the saved detector.
        weights: Where the teacher's weights come from; see `kdlib.teachers.teacher`. `None`: as when it was saved,
            without a download, and without opening a file that only the card names.

    Raises:
        ValueError: If files are missing, damaged, foreign, of another format, or the teacher's weights are others than
            those the student learned from.
    """
    folder = Path(folder)
    path = folder / WEIGHTS
    if not path.is_file():
        raise ValueError(
            f"no detector in '{folder}': '{WEIGHTS}' is missing; expected a folder written by kdlib's save()"
        )
    try:
        tensors, meta = read_tensors(path)
    except RecursionError as error:
        raise ValueError(f"'{path}' is damaged: its header is nested too deeply; save the detector anew") from error
    card = _checked_card(path, meta.get("card"), tensors)
    try:
        return _built(card, tensors, weights)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"'{path}' describes a detector that cannot be built ({error}); save it anew") from error


def _checked_card(path: Path, card: Any, tensors: dict[str, Tensor]) -> Card:
    if not isinstance(card, dict):
        raise ValueError(f"'{path}' is no detector: its header has no card; expected a file written by kdlib's save()")
    if card.get("format") != FORMAT:
        raise ValueError(
            f"'{path}' has format {card.get('format')}, this kdlib reads {FORMAT}; load it with the version that saved "
            f"it: {card.get('versions')}"
        )
    if card.get("sha256") != cards.checksum(card, tensors):
        raise ValueError(f"'{path}' is damaged: its content does not match its checksum; copy it or save it anew")
    try:
        return cards.read(card)
    except ValueError as error:
        raise ValueError(f"'{path}' has a card that does not fit: {error}; save the detector anew") from error


def _built(card: Card, tensors: dict[str, Tensor], weights: str | Path | None) -> Detector:
    _check_finite(tensors)
    model = methods.build(card.method, **card.config | {"weights": _source(card, weights)})
    _check_teacher(model, card)
    trained, means = _below("model.", tensors), _below("normal.", tensors)
    if len(trained) + len(means) < len(tensors):
        raise ValueError("some stored tensors belong neither to the model nor to its normal maps; save it anew")
    model.load_trained(trained)
    normal = _normal_maps(means, card.floor)
    return Detector(
        model.eval(),
        card.size,
        card.threshold,
        card.scale,
        precision=card.precision,
        normal=normal,
        white=card.white,
    )


def _source(card: Card, asked: str | Path | None) -> str | Path:
    """Where the teacher's weights come from: what is asked for, or what was saved if that needs no trust."""
    saved = card.config["weights"]
    if asked is not None:
        return asked
    if saved in ("auto", "hub"):
        return "auto"
    if saved == "random":
        return saved
    raise ValueError(
        f"the teacher's weights came from the file '{saved}'; a file that only a card names is not opened unasked: "
        "pass weights= with that path, or weights='auto' for weights that are installed"
    )


def _check_teacher(model: Distiller, card: Card) -> None:
    teacher = model.teacher
    if teacher.fingerprint() != card.teacher.sha256:
        raise ValueError(
            f"the detector was trained with teacher weights {card.teacher.weights}, here the teacher has "
            f"{teacher.weights}, which are others; pass weights=... to name the right ones"
        )
    if (teacher.name, tuple(teacher.strides)) != (card.teacher.name, card.strides):
        raise ValueError(
            f"the card names teacher '{card.teacher.name}' at strides {card.strides}, its configuration makes "
            f"'{teacher.name}' at {tuple(teacher.strides)}; save the detector anew"
        )


def _check_finite(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(
                f"tensor '{name}' has NaN or infinite values, which would call every image normal; train the model "
                "anew with a lower learning rate"
            )


def _normal_maps(means: dict[str, Tensor], floor: float | None) -> NormalMaps | None:
    names = [f"mean_{level}" for level in range(len(means))]
    if sorted(means) != sorted(names) or bool(means) != (floor is not None):
        raise ValueError(
            f"the stored normal maps are {sorted(means)} with a floor of {floor}; expected mean_0, mean_1, ... and a "
            "floor, or neither"
        )
    return None if floor is None else NormalMaps([means[name] for name in names], floor=floor)


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
