"""Configurations of methods: the fields that all of them have, and the checking of every field by its declared type."""

from __future__ import annotations

import math
import operator
import types
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
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
        schedule: Learning rate: `constant`, or `cosine`, falling from the method's to 0 along half a cosine.
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
    schedule: Literal["constant", "cosine"] = "constant"
    clip: float | None = None
    fusion: Fusion = "sum"
    blur: float = 4.0
    align_corners: bool = False
    top_k: int = 1
    margin: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what no method can work with, before anything is trained.

        Raises:
            ValueError: If a field has another type than declared, a choice is unknown, or a count is not positive.
        """
        check_fields(self)
        if min(self.batch_size, self.top_k, self.epochs, 1 if self.steps is None else self.steps) < 1 or self.blur < 0:
            raise ValueError(
                f"batch_size is {self.batch_size}, steps {self.steps}, epochs {self.epochs}, top_k {self.top_k}, blur "
                f"{self.blur}; expected positive numbers, or a blur of 0"
            )
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip is {self.clip}; expected a positive norm, or none")
        if not 0 <= self.margin < 128:
            raise ValueError(f"margin is {self.margin}; expected 0 to 127 pixels of a 256 px image")
        if self.neighbourhood < 1 or self.neighbourhood % 2 == 0:
            raise ValueError(f"neighbourhood is {self.neighbourhood}; expected an odd number: 1, 3, 5, ...")
        if not self.strides or min(self.strides) < 1:
            raise ValueError(f"strides are {self.strides}; expected one or more positive numbers, like (4, 8, 16)")


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
            expected = _described(hints[each.name])
            raise ValueError(f"{each.name} is {value!r}; expected {expected}") from None


def _typed(value: Any, hint: Any) -> Any:
    """The value as the hinted type; `TypeError` or `ValueError` if it is none of that type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _typed_union(value, arguments)
    if origin is Literal:
        matching = [choice for choice in arguments if choice == value and type(choice) is type(_plain(value))]
        if not matching:
            raise ValueError
        return matching[0]
    if origin is tuple:
        return _typed_tuple(value, arguments)
    if hint is bool:
        if not isinstance(value, (bool, np.bool_)):
            raise TypeError
        return bool(value)
    if hint is int:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return operator.index(value)
    if hint is float:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real) or not math.isfinite(value):
            raise TypeError
        return float(value)
    if not isinstance(value, hint):
        raise TypeError
    return value


def _typed_union(value: Any, arguments: Sequence[Any]) -> Any:
    if value is None and type(None) in arguments:
        return None
    for argument in arguments:
        if argument is not type(None):
            try:
                return _typed(value, argument)
            except (TypeError, ValueError):
                continue
    raise TypeError


def _typed_tuple(value: Any, arguments: Sequence[Any]) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(_typed(entry, arguments[0]) for entry in value)
    return tuple(_typed(entry, argument) for entry, argument in zip(value, arguments, strict=True))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _described(hint: Any) -> str:
    """A type in words, for error messages."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_described(argument) for argument in arguments)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"a list, each {_described(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}, each {_described(arguments[0])}"
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "none"}
    return names.get(hint, str(hint))
