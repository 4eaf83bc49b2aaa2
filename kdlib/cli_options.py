"""Options that several commands share; their texts and defaults are those of `kdlib.trials.configuration`."""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from kdlib.fields import meanings
from kdlib.methods import BASELINES, METHODS
from kdlib.trials.configuration import Configuration

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


def changes(
    option: Sequence[str] | None,
    backbone: str | None = None,
    weights: str | None = None,
    steps: int | None = None,
    batch: int | None = None,
) -> dict[str, Any]:
    """Fields of a method's configuration that the command line changes; `--option` wins."""
    given = {"weights": weights, "backbone": backbone, "steps": steps, "batch_size": batch}
    return {name: value for name, value in given.items() if value is not None} | options(option or [])


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
