"""The card of a saved detector: everything needed to build it again, with every field checked.

A card may come from anywhere. Its fields are typed, ranged and complete, unknown ones are refused, and a checksum over
the card and all tensors tells a damaged file from a whole one; it does not prove who wrote them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

import torch
from torch import Tensor

from kdlib import methods
from kdlib.config import check_fields
from kdlib.data.reading import WHITE
from kdlib.runtime import Precision, versions
from kdlib.scoring.calibration import Scale, Threshold
from kdlib.scoring.detector import Detector

FORMAT = 2
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class TeacherCard:
    """Which teacher a student learned from.

    Attributes:
        name: Full timm name.
        weights: Where the weights came from, in words.
        sha256: Fingerprint of the weights.
    """

    name: str
    weights: str
    sha256: str

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a saved detector says about itself.

    Attributes:
        format: Version of the file format.
        method: Name of the method.
        config: All fields of its configuration.
        teacher: What the student learned from.
        strides: Levels of the teacher in pixels.
        size: Working height and width in pixels.
        precision: Type of the convolutions when the threshold was set.
        white: The value of 16-bit grey files that becomes white; `None`: 65535.
        floor: Of the normal maps, see `kdlib.scoring.normal_maps`; `None` where level maps are taken as they are.
        threshold: See `kdlib.scoring.calibration.Threshold`.
        scale: See `kdlib.scoring.calibration.Scale`.
        versions: Of Python and packages, by name.
        sha256: See `checksum`.
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
        known = {f.name for f in fields(methods.preset(self.method))}
        _check_names(self.config, known, f"the configuration of '{self.method}'")


def describe(detector: Detector, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The card of a detector, with a checksum over it and the tensors saved with it, as plain JSON values."""
    teacher = detector.model.teacher
    card = Card(
        format=FORMAT,
        method=detector.model.name,
        config=asdict(detector.model.config),
        teacher=TeacherCard(name=teacher.name, weights=str(teacher.weights), sha256=teacher.fingerprint()),
        strides=teacher.strides,
        size=detector.size,
        precision=detector.precision,
        white=detector.white,
        floor=detector.normal.floor if detector.normal else None,
        threshold=detector.threshold,
        scale=detector.scale,
        versions=versions(),
        sha256="",
    )
    written: dict[str, Any] = json.loads(json.dumps(asdict(card)))
    return written | {"sha256": checksum(written, tensors)}


def read(card: Mapping[str, Any]) -> Card:
    """The card out of plain JSON values.

    Raises:
        ValueError: If a field is missing, unknown, of another type or out of its range.
    """
    _check_names(card, {f.name for f in fields(Card)}, "the card")
    return Card(
        **{
            **card,
            "teacher": _part(TeacherCard, card["teacher"], "teacher"),
            "threshold": _part(Threshold, card["threshold"], "threshold"),
            "scale": _part(Scale, card["scale"], "scale"),
        }
    )


def checksum(card: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the card without its own `sha256`, and names, types, shapes and bytes of all tensors."""
    rest = {name: value for name, value in card.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _part(kind: type[_T], values: Any, name: str) -> _T:
    if not isinstance(values, dict):
        raise ValueError(f"{name} is {values!r}; expected named values")
    _check_names(values, {f.name for f in fields(kind)}, name)  # type: ignore[arg-type]
    return kind(**values)


def _check_names(values: Mapping[str, Any], expected: set[str], owner: str) -> None:
    missing, unknown = sorted(expected - values.keys()), sorted(values.keys() - expected)
    if missing or unknown:
        raise ValueError(f"{owner} lacks {missing or 'nothing'} and has unknown fields {unknown or 'none'}")
