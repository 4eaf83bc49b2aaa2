"""The card of a saved detector: everything needed to build it again, with every field checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from kdlib import methods
from kdlib.config import Fusion, check_fields
from kdlib.data.reading import WHITE
from kdlib.runtime import Precision
from kdlib.scoring.calibration import Scale, Threshold
from kdlib.scoring.normal_maps import By

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
class NormalCard:
    """How level maps are measured against normal ones, see `kdlib.scoring.normal_maps` and `whitening`."""

    floor: float
    fusion: Fusion
    strength: float
    by: By
    bases: tuple[float, ...]
    whitened: bool

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
        normal: Of the normal maps; `None` where level maps are taken as they are.
        threshold: See `kdlib.scoring.calibration.Threshold`.
        scale: See `kdlib.scoring.calibration.Scale`.
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
    normal: NormalCard | None
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


def read(kind: type[_T], values: Any, owner: str) -> _T:
    """A dataclass, and those in it, out of JSON's named values."""
    if not isinstance(values, dict):
        raise ValueError(f"{owner} is {values!r}; expected named values")
    hints = get_type_hints(kind)
    _check_names(values, hints, owner)
    parts: dict[str, Any] = {}
    for name, hint in hints.items():
        kinds = [part for part in (hint, *get_args(hint)) if is_dataclass(part)]
        if kinds and (values[name] is not None or type(None) not in get_args(hint)):
            parts[name] = read(kinds[0], values[name], name)  # type: ignore[arg-type]
    return kind(**values | parts)


def _check_names(values: dict[str, Any], expected: Iterable[str], owner: str) -> None:
    names = set(expected)
    missing, unknown = sorted(names - values.keys()), sorted(values.keys() - names)
    if missing or unknown:
        raise ValueError(f"{owner} lacks {missing or 'nothing'} and has unknown fields {unknown or 'none'}")
