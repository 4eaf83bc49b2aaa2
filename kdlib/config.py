"""Configurations of methods: the fields that all of them have, and the checking of every field by its declared type."""

from __future__ import annotations

import math
import operator
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from numbers import Real
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

Fusion = Literal["sum", "mean", "product", "max"]
DEFAULT_BACKBONE = "tf_efficientnet_lite0"


def ablation(default: Any) -> Any:
    """A field that only studies change, to ask whether a part matters; nobody needs it for images of their own."""
    return field(default=default, metadata={"ablation": True})


@dataclass(frozen=True, kw_only=True)
class DistillerConfig:
    """What every method has; defaults are the ones most papers share.

    Attributes:
        backbone: timm name of the teacher; several names with `+` between them teach as one.
        weights: `auto`, `hub`, `random` or a file; see `kdlib.teachers.teacher`.
        strides: Levels of the pyramid, in pixels.
        teacher_blocks: Levels by number, counted from 1, where strides do not tell them apart: blocks of a vision
            transformer, like (3, 6, 9). Replaces `strides` where set.
        neighbourhood: Positions over which the teacher's features are averaged; 1, as in the papers, leaves them alone.
        epochs: Passes over the training images.
        steps: Optimiser steps; replaces `epochs` where set.
        batch_size: Images per step.
        schedule: Learning rate: `constant`; `cosine`, falling from the method's to 0 along half a cosine; `one_cycle`,
            rising from a 25th of the method's to it, then falling to nothing.
        clip: Largest norm of the gradient over all parameters; `None` leaves it alone.
        fusion: How level maps are fused: `sum`, `mean`, `product`, `max`.
        blur: Gaussian sigma of the anomaly map, in pixels of a 256 px image.
        align_corners: Convention when level maps are resized.
        top_k: Pixels averaged into the image score; 1 is the maximum.
        margin: Rim of the map that the image score leaves out, in pixels of a 256 px image; 0 in the papers. Networks
            pad images with zeros, and what they make of the rim is harder to imitate than the rest.
    """

    backbone: str = DEFAULT_BACKBONE
    weights: str = "auto"
    strides: tuple[int, ...] = (4, 8, 16)
    teacher_blocks: tuple[int, ...] | None = None
    neighbourhood: int = 1
    epochs: int = 100
    steps: int | None = None
    batch_size: int = 16
    schedule: Literal["constant", "cosine", "one_cycle"] = "constant"
    clip: float | None = None
    fusion: Fusion = "sum"
    blur: float = 4.0
    align_corners: bool = False
    top_k: int = 1
    margin: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what no method can work with, before anything is trained.

        Raises:
            ValueError: If a field has another type than declared, a choice is unknown, or a number is out of range.
        """
        check_fields(self)
        ranges = {
            "epochs": (self.epochs >= 1, "1 or more"),
            "steps": (self.steps is None or self.steps >= 1, "1 or more, or none"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "clip": (self.clip is None or self.clip > 0, "a positive norm, or none"),
            "top_k": (self.top_k >= 1, "1 or more"),
            "blur": (0 <= self.blur <= 100, "0 to 100 pixels of a 256 px image"),
            "lr": (getattr(self, "lr", 1.0) > 0, "a number above 0"),
            "betas": (all(0 <= beta < 1 for beta in getattr(self, "betas", ())), "numbers from 0 to below 1"),
            "margin": (0 <= self.margin <= 127, "0 to 127 pixels of a 256 px image"),
            "neighbourhood": (self.neighbourhood % 2 == 1 and self.neighbourhood > 0, "an odd number: 1, 3, 5, ..."),
            "strides": (min(self.strides, default=0) >= 1, "one or more positive numbers, like (4, 8, 16)"),
        }
        for name, (fits, expected) in ranges.items():
            if not fits:
                raise ValueError(f"{name} is {getattr(self, name)}; expected {expected}")

    def teacher_strides(self) -> tuple[int, ...] | tuple[tuple[int, ...], ...]:
        """Strides that the teacher gives; a tuple for each network where their levels come one after the other."""
        return self.strides


def check_fields(config: Any) -> None:
    """Brings every field of a dataclass to its declared type: 64 of NumPy to 64, a list to a tuple, 1 to 1.0.

    Raises:
        ValueError: If a value is not of that type: a fraction for a count, a text for a switch, an unknown choice.
    """
    hints = get_type_hints(type(config))
    for each in fields(config):
        value = getattr(config, each.name)
        try:
            object.__setattr__(config, each.name, _typed(value, hints[each.name]))
        except (TypeError, ValueError):
            expected = described(hints[each.name])
            raise ValueError(f"{each.name} is {value!r}; expected {expected}") from None


def check_kind(name: str, value: object, kind: type, expected: str) -> None:
    """Refuses an argument of another kind.

    Raises:
        ValueError: If `value` is no `kind`; it says what was `expected` in words.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{name} is a {type(value).__name__}; expected {expected}")


def check_names(given: Iterable[str], known: Iterable[str], owner: str) -> None:
    """Refuses names that nobody knows.

    Raises:
        ValueError: If a name is not known; the nearest known one is named, or all of them.
    """
    names = list(known)
    for name in given:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"expected some of {', '.join(sorted(names))}"
            raise ValueError(f"{owner} has no '{name}'; {hint}")


def _typed(value: Any, hint: Any) -> Any:
    """The value as the hinted type; `TypeError` or `ValueError` if it is none of that type."""
    origin, arguments = get_origin(hint), get_args(hint)
    value = value.item() if isinstance(value, np.generic) else value
    if origin in (Union, types.UnionType):
        return _typed_union(value, arguments)
    if origin is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        hints = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        return tuple(_typed(entry, own) for entry, own in zip(value, hints, strict=True))
    if origin is Literal and any(choice == value and type(choice) is type(value) for choice in arguments):
        return value
    if hint is int and not isinstance(value, bool):
        return operator.index(value)
    if hint is float and isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if origin is dict and isinstance(value, dict):
        return value
    if origin is None and hint not in (int, float) and isinstance(value, hint):
        return value
    raise TypeError


def _typed_union(value: Any, arguments: Sequence[Any]) -> Any:
    for argument in arguments:
        try:
            return _typed(value, argument)
        except (TypeError, ValueError):
            continue
    raise TypeError


def described(hint: Any) -> str:
    """A type in words, for error messages and comments."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(described, arguments))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f" of {len(arguments)}"
        return f"a list{count}, each {described(arguments[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "none"}
    return names.get(hint, str(hint))
