"""Detectors in folders: trained tensors as safetensors with a card in their header, and the card as JSON to read.

A card may come from anywhere. Its fields are typed, ranged and complete, unknown ones are refused, and a checksum over
the card and all tensors tells a damaged file from a whole one; it does not prove who wrote them.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdlib import methods
from kdlib.config import check_kind
from kdlib.contract import Distiller
from kdlib.files import checksum, expanded, read_header, read_tensors, write_tensors, write_text
from kdlib.runtime import versions
from kdlib.scoring.card import Card, NormalCard, read
from kdlib.scoring.detector import Detector
from kdlib.scoring.normal_maps import NormalMaps
from kdlib.scoring.whitening import Whitening
from kdlib.teachers import Teacher

FORMAT = 4
WEIGHTS, CARD = "model.safetensors", "card.json"


def save(detector: Detector, folder: str | Path, *, half: bool = False, note: dict[str, Any] | None = None) -> Path:
    """Writes the trained weights (safetensors) and a card (JSON) into a folder, each whole or not at all.

    The teacher's weights are not copied; the card names them. `load` reads the card in the header of the weights;
    `card.json` is a copy for people. `half` keeps trained weights as 16-bit floats, in half the space; scores change by
    the rounding. `note` is kept beside the card, as JSON; `noted` reads it.
    """
    check_kind("detector", detector, Detector, "a Detector as kd.calibrate or kd.load give")
    folder = expanded(folder)
    trained = detector.model.trained_tensors()
    tensors = {f"model.{name}": halved(tensor) if half else tensor for name, tensor in trained.items()}
    for part, module in (("normal", detector.normal), ("whitening", detector.whitening)):
        if module:
            tensors |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
    teacher = detector.model.teacher
    card = {
        "format": FORMAT,
        "method": detector.model.name,
        "config": asdict(detector.model.config),
        "teacher": {"name": teacher.name, "weights": str(teacher.weights), "sha256": teacher.fingerprint()},
        "strides": teacher.strides,
        "size": detector.size,
        "precision": detector.precision,
        "white": detector.white,
        "normal": _of_normal(detector.normal, detector.whitening),
        "threshold": asdict(detector.threshold),
        "scale": asdict(detector.scale),
        "versions": versions(),
    }
    card["sha256"] = checksum(card, tensors)
    write_tensors(folder / WEIGHTS, tensors, {"card": card} | ({"note": note} if note else {}))
    write_text(folder / CARD, json.dumps(card, indent=2) + "\n")
    return folder


def noted(folder: Path) -> dict[str, Any]:
    """The note that `save` kept with the detector in a folder; empty where it kept none.

    Raises:
        ValueError: If the file is damaged.
    """
    note = read_header(folder / WEIGHTS).get("note")
    return note if isinstance(note, dict) else {}


def _of_normal(normal: NormalMaps | None, whitening: Whitening | None) -> dict[str, Any] | None:
    if normal is None:
        return None
    return {**normal.settings(), "bases": normal.bases, "whitened": whitening is not None}


def halved(tensor: Tensor) -> Tensor:
    """A tensor of fractions as 16-bit floats; others as they are.

    Raises:
        ValueError: If a value is too large for 16 bits.
    """
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    if not torch.isfinite(half).all():
        raise ValueError(f"a weight is {tensor.abs().max():.3g}; 16-bit floats end at 65504: save without half")
    return half


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
    path = expanded(folder) / WEIGHTS
    if not path.is_file():
        raise ValueError(f"no detector in '{folder}': '{WEIGHTS}' is missing; expected a folder written by kd.save")
    try:
        tensors, meta = read_tensors(path)
    except RecursionError as error:
        raise ValueError(f"'{path}' is damaged: its header is nested too deeply; save the detector anew") from error
    card = meta.get("card")
    if not isinstance(card, dict):
        raise ValueError(f"'{path}' is no detector: its header has no card; expected a file written by kd.save")
    if card.get("format") != FORMAT:
        raise ValueError(
            f"'{path}' has format {card.get('format')}, this kdlib reads {FORMAT}; load it with the version that saved "
            f"it: {card.get('versions')}"
        )
    if card.get("sha256") != checksum(card, tensors):
        raise ValueError(f"'{path}' is damaged: its content does not match its checksum; copy it or save it anew")
    try:
        checked = read(Card, card, "the card")
    except ValueError as error:
        raise ValueError(f"'{path}' has a card that does not fit: {error}; save the detector anew") from error
    try:
        return _built(checked, tensors, weights)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"'{path}' describes a detector that cannot be built ({error}); save it anew") from error


def _built(card: Card, tensors: dict[str, Tensor], weights: str | Path | None) -> Detector:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(
                f"tensor '{name}' has NaN or infinite values, which would call every image normal; train the model "
                "anew with a lower learning rate"
            )
    model = methods.build(card.method, **card.config | {"weights": _source(card, weights)})
    _check_teacher(model.teacher, card)
    trained, means, inverses = (
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for prefix in ("model.", "normal.", "whitening.")
    )
    if len(trained) + len(means) + len(inverses) < len(tensors):
        raise ValueError("some stored tensors belong neither to the model nor to its normal maps; save it anew")
    model.load_trained({name: t.float() if t.is_floating_point() else t for name, t in trained.items()})
    normal, whitening = _normal_maps(means, card.normal), _whitening(inverses, card.normal, model)
    options: dict[str, Any] = {"precision": card.precision, "normal": normal, "whitening": whitening}
    return Detector(model, card.size, card.threshold, card.scale, white=card.white, **options)


def _source(card: Card, asked: str | Path | None) -> str | Path:
    """Where the teacher's weights come from: what is asked for, or what was saved if that needs no trust."""
    saved = card.config["weights"]
    if asked is not None:
        return asked
    if saved in ("auto", "hub", "random"):
        return "random" if saved == "random" else "auto"
    raise ValueError(
        f"the teacher's weights came from the file '{saved}'; a file that only a card names is not opened unasked: "
        "pass weights= with that path, or weights='auto' for weights that are installed"
    )


def _check_teacher(teacher: Teacher, card: Card) -> None:
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


def _normal_maps(means: dict[str, Tensor], card: NormalCard | None) -> NormalMaps | None:
    stored = _levels("mean", means, len(card.bases) if card else 0)
    if card is None:
        return None
    return NormalMaps(stored, card.bases, floor=card.floor, fusion=card.fusion, strength=card.strength, by=card.by)


def _whitening(inverses: dict[str, Tensor], card: NormalCard | None, model: Distiller) -> Whitening | None:
    whitened = card is not None and card.whitened
    stored = _levels("inverse", inverses, len(card.bases) if card and whitened else 0)
    if not whitened:
        return None
    if any(len(inverse) not in model.teacher.channels for inverse in stored):
        raise ValueError(
            f"whitening matrices are {[tuple(inverse.shape) for inverse in stored]}; the teacher has channels "
            f"{model.teacher.channels}: save the detector anew"
        )
    return Whitening(stored)


def _levels(kind: str, tensors: dict[str, Tensor], count: int) -> list[Tensor]:
    """The tensors of all levels, fine to coarse."""
    names = [f"{kind}_{level}" for level in range(count)]
    if tensors.keys() != set(names):
        raise ValueError(f"the stored normal maps have {sorted(tensors)}; the card wants {names or 'none'}")
    return [tensors[name] for name in names]
