"""Options that several commands share; their texts and defaults are those of `kdlib.trials.configuration`."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from kdlib.fields import meanings
from kdlib.methods import BASELINES, METHODS
from kdlib.trials.configuration import ORDER, Configuration, completed

_MEANING = meanings(Configuration)
_DEFAULT = {field.name: field.default for field in fields(Configuration)}


def setting(name: str, **more: Any) -> Any:
    """The option of one field of a configuration."""
    default = _DEFAULT[name]
    listed = " ".join(map(str, default)) if isinstance(default, tuple) else default
    usual = f" Default: {listed}." if isinstance(listed, (str, int)) else ""
    return typer.Option(help=f"{_MEANING[name]}{usual}", show_default=False, **more)


Config = Annotated[
    Path | None, typer.Option("--config", help="YAML file, as `config` prints it; options given here win over it.")
]
Method = Annotated[
    str | None, typer.Argument(help=f"{_MEANING['method']} Methods: {', '.join([*METHODS, *BASELINES])}.")
]
Data = Annotated[str | None, setting("data")]
Out = Annotated[str | None, setting("out")]
Layout = Annotated[str | None, setting("layout")]
Category = Annotated[list[str] | None, setting("category")]
Protocol = Annotated[str | None, setting("protocol")]
Maps = Annotated[str | None, setting("maps")]
White = Annotated[int | None, setting("white")]
Size = Annotated[int | None, setting("size", min=1)]
Seed = Annotated[list[int] | None, setting("seed")]
Auxiliary = Annotated[str | None, setting("auxiliary")]
Device = Annotated[str | None, setting("device")]
PrecisionOption = Annotated[str | None, setting("precision")]
Backbone = Annotated[str | None, typer.Option(help="timm name of the teacher; default: the preset's.")]
Weights = Annotated[
    str | None, typer.Option(help="auto, hub (downloads), random, or a file; default: the preset's, auto.")
]
Steps = Annotated[int | None, typer.Option(help="Optimiser steps; default: the preset's.")]
Batch = Annotated[int | None, typer.Option(help="Images per step; default: the preset's.")]
Option = Annotated[
    list[str] | None,
    typer.Option(
        help="NAME=VALUE of the method's configuration, see `config METHOD`; values as in JSON or Python.",
        show_default=False,
    ),
]


OPTIONS: dict[str, Any] = {
    "method": Method,
    "config": Config,
    "data": Data,
    "out": Out,
    "layout": Layout,
    "category": Category,
    "protocol": Protocol,
    "maps": Maps,
    "backbone": Backbone,
    "weights": Weights,
    "size": Size,
    "white": White,
    "steps": Steps,
    "batch": Batch,
    "seed": Seed,
    "auxiliary": Auxiliary,
    "device": Device,
    "precision": PrecisionOption,
    "option": Option,
}
"""What a command may be told of a configuration, in the order of its help."""
Given = dict[str, Any]
"""Values of such options by name; `None` where nothing was said."""


def takes(*without: str, only: Sequence[str] = tuple(OPTIONS)) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command the options of a configuration, whose values it takes as its argument `given`.

    Args:
        *without: Options that it does not have.
        only: Options that it has.
    """
    names = [name for name in only if name not in without]

    def dressed(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in signature(command, eval_str=True).parameters.values() if p.name != "given"]
        shared = [Parameter(n, Parameter.KEYWORD_ONLY, default=None, annotation=OPTIONS[n]) for n in names]

        @wraps(command)
        def called(**values: Any) -> None:
            given = {name: values.pop(name) for name in names}
            command(**values, given=given)

        parameters = [*own, *shared]
        called.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return dressed


def configuration(given: Given, *, examples: bool = False) -> Configuration:
    """The configuration that a file and options make; options win. `examples` as of `completed`.

    Raises:
        ValueError: If something is missing or does not fit.
    """
    fields_of_method = {"backbone": "backbone", "weights": "weights", "steps": "steps", "batch": "batch_size"}
    changed = {field: given[name] for name, field in fields_of_method.items() if given.get(name) is not None}
    named = {name: given[name] for name in ORDER if name in given}
    return completed(given.get("config"), named, changed | options(given.get("option") or []), examples=examples)


def options(pairs: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` as fields of a configuration.

    Raises:
        ValueError: If a text is not NAME=VALUE.
    """
    named = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--option '{pair}' is not NAME=VALUE, for example fusion=product")
        named[name] = value(text)
    return named


def value(text: str) -> Any:
    """A value as JSON or Python writes it: `false` and `False`, `null` and `None`, lists; anything else is a text."""
    for parse in (json.loads, ast.literal_eval):
        try:
            parsed = parse(text)
        except (ValueError, SyntaxError):
            continue
        return tuple(parsed) if isinstance(parsed, list) else parsed
    return text
