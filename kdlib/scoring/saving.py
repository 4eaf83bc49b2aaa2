"""Detectors in folders: trained tensors as safetensors with a card in their header, and the card as JSON to read.

A card may come from anywhere. Its fields are typed, ranged and complete, unknown ones are refused, and a checksum over
the card and all tensors tells a damaged file from a whole one; it does not prove who wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import torch
from torch import Tensor

from kdlib import methods
from kdlib.config import check_fields
from kdlib.data.reading import WHITE
from kdlib.files import checksum, read_tensors, write_tensors, write_text
from kdlib.runtime import Precision, versions
from kdlib.scoring.calibration import Scale, Threshold
from kdlib.scoring.detector import Detector
from kdlib.scoring.normal_maps import NormalMaps
from kdlib.teachers import Teacher

FORMAT = 2
WEIGHTS, CARD = "model.safetensors", "card.json"
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class TeacherCard:
    """Which teacher a student learned from: its timm name, where its weights came from in words, their fingerprint."""

    name: str
    weights: str
    sha256: str

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a saved detector says about itself.

    Attributes:
        config: All fields of the method's configuration.
        strides: Levels of the teacher in pixels.
        size: Working height and width in pixels.
        precision: Type of the convolutions when the threshold was set.
        white: The value of 16-bit grey files that becomes white; `None`: 65535.
        floor: Of the normal maps; `None` where level maps are taken as they are.
        versions: Of Python and packages, by name.
        sha256: See `kdlib.files.checksum`.
    """

    format: int
    method: str
    config: dict
    teacher: TeacherCard
    strides: tuple[int, ...]
    size: tuple[int, int]
    precision: Precision
    white: int | None
    floor: float | None
    threshold: Threshold
    scale: Scale
    versions: dict
    sha256: str

    def __post_init__(self) -> None:
        check_fields(self)
        if min(self.size) < 1:
            raise ValueError(f"size is {self.size}; expected a height and width of 1 pixel or more")
        if self.white is not None and not 255 <= self.white <= WHITE:
            raise ValueError(f"white is {self.white}; expected none, or 255 to {WHITE}")
        for package, version in self.versions.items():
            if not isinstance(version, str):
                raise ValueError(f"the version of '{package}' is {version!r}; expected a text")
        known = (f.name for f in fields(methods.preset(self.method)))
        _check_names(self.config, known, f"the configuration of '{self.method}'")


def save(detector: Detector, folder: str | Path) -> Path:
    """Writes the trained weights (safetensors) and a card (JSON) into a folder, each whole or not at all.

    The teacher's weights are not copied; the card names them. `load` reads the card in the header of the weights;
    `card.json` is a copy for people.
    """
    folder = Path(folder)
    tensors = {f"model.{name}": tensor for name, tensor in detector.model.trained_tensors().items()}
    if detector.normal:
        tensors |= {f"normal.{name}": tensor for name, tensor in detector.normal.state_dict().items()}
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
        "floor": detector.normal.floor if detector.normal else None,
        "threshold": asdict(detector.threshold),
        "scale": asdict(detector.scale),
        "versions": versions(),
    }
    card["sha256"] = checksum(card, tensors)
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
    path = Path(folder) / WEIGHTS
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
        read = _read(Card, card, "the card")
    except ValueError as error:
        raise ValueError(f"'{path}' has a card that does not fit: {error}; save the detector anew") from error
    try:
        return _built(read, tensors, weights)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"'{path}' describes a detector that cannot be built ({error}); save it anew") from error


def _read(kind: type[_T], values: Any, owner: str) -> _T:
    """A dataclass, and those in it, out of JSON's named values."""
    if not isinstance(values, dict):
        raise ValueError(f"{owner} is {values!r}; expected named values")
    hints = get_type_hints(kind)
    _check_names(values, hints, owner)
    parts: dict[str, Any] = {n: _read(hint, values[n], n) for n, hint in hints.items() if is_dataclass(hint)}  # type: ignore[arg-type]
    return kind(**values | parts)


def _check_names(values: dict[str, Any], expected: Iterable[str], owner: str) -> None:
    names = set(expected)
    missing, unknown = sorted(names - values.keys()), sorted(values.keys() - names)
    if missing or unknown:
        raise ValueError(f"{owner} lacks {missing or 'nothing'} and has unknown fields {unknown or 'none'}")


def _built(card: Card, tensors: dict[str, Tensor], weights: str | Path | None) -> Detector:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(
                f"tensor '{name}' has NaN or infinite values, which would call every image normal; train the model "
                "anew with a lower learning rate"
            )
    model = methods.build(card.method, **card.config | {"weights": _source(card, weights)})
    _check_teacher(model.teacher, card)
    trained, means = (
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for prefix in ("model.", "normal.")
    )
    if len(trained) + len(means) < len(tensors):
        raise ValueError("some stored tensors belong neither to the model nor to its normal maps; save it anew")
    model.load_trained(trained)
    normal = _normal_maps(means, card.floor)
    options: dict[str, Any] = {"precision": card.precision, "normal": normal, "white": card.white}
    return Detector(model, card.size, card.threshold, card.scale, **options)


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


def _normal_maps(means: dict[str, Tensor], floor: float | None) -> NormalMaps | None:
    names = [f"mean_{level}" for level in range(len(means))]
    if means.keys() != set(names) or bool(means) != (floor is not None):
        raise ValueError(
            f"the stored normal maps are {sorted(means)} with a floor of {floor}; expected mean_0, mean_1, ... and a "
            "floor, or neither"
        )
    return None if floor is None else NormalMaps([means[name] for name in names], floor=floor)
