"""The command line: `python -m kdlib run`, `bench`, `doctor`, and what other packages add.

A package adds a command through an entry point of the group `kdlib.commands`, whose object is a function for Typer:

    [project.entry-points."kdlib.commands"]
    study = "kdlib.course.commands:study"
"""

from __future__ import annotations

import ast
import json
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer

from kdlib import data as datasets
from kdlib import teachers
from kdlib.methods import BASELINES, METHODS
from kdlib.runtime import choose, processes, versions
from kdlib.trials import run as runs
from kdlib.trials import speed, table

app = typer.Typer(help="Anomaly detection by knowledge distillation.", no_args_is_help=True, add_completion=False)
Backbone = Annotated[str | None, typer.Option(help="timm name of the teacher; default: the preset's.")]
Weights = Annotated[str, typer.Option(help="auto, hub (downloads), random, or a file.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
Size = Annotated[int, typer.Option(help="Working height and width in pixels.", min=1)]
White = Annotated[int | None, typer.Option(help="White level of 16-bit grey files, such as 1023 or 4095.")]
_SEVERAL = ("--category", "--seed", "--option", "--variant", "--method")


@app.command()
def run(
    methods: Annotated[
        list[str], typer.Argument(help=f"Any of {', '.join([*METHODS, *BASELINES])}, or METHOD/PRESET.")
    ],
    data: Annotated[str, typer.Option(help="Root of a data set, or 'workshop', 'mill'.")],
    out: Annotated[Path, typer.Option(help="Folder for metrics.csv, example maps and models.")],
    layout: Annotated[str, typer.Option(help="auto, or a layout's name.")] = "auto",
    category: Annotated[list[str] | None, typer.Option(help="Categories; default all.")] = None,
    protocol: Annotated[str, typer.Option(help="single: a model per category. multi: one for all.")] = "single",
    maps: Annotated[str, typer.Option(help="plain, normal (divided by normal maps) or whitened; auto.")] = "auto",
    backbone: Backbone = None,
    weights: Weights = "auto",
    size: Size = 256,
    white: White = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps; default: the preset's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step; default: the preset's.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seeds; default 0.")] = None,
    auxiliary: Annotated[
        str | None, typer.Option(help="Images of something else: textures, photographs, or a folder; A+B for several.")
    ] = None,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of a method's configuration; values as in JSON or Python.")
    ] = None,
) -> None:
    """Train, evaluate and compare methods on equal terms.

    --category, --seed and --option take several values: --seed 0 1 2. Methods come first.
    """
    if protocol not in ("single", "multi"):
        raise ValueError(f"--protocol is '{protocol}'; expected 'single' or 'multi'")
    given = {"weights": weights, "backbone": backbone, "steps": steps, "batch_size": batch}
    overrides = {name: value for name, value in given.items() if value is not None}
    settings = runs.Settings(
        data=data,
        layout=layout,
        white=white,
        protocol=protocol,  # type: ignore[arg-type]
        maps=maps,
        size=size,
        overrides=overrides | options(option or []),
        device=device,
        precision=precision,
        auxiliary=auxiliary,
    )
    rows = runs.run(settings, methods, category, seed or [0], out, typer.echo)
    if processes().is_main_process:
        typer.echo(f"\nmean over categories and seeds\n{table.means(rows)}")
        typer.echo(f"\nrows in {out / 'metrics.csv'}, example maps in {out}/CATEGORY/")


@app.command()
def bench(
    method: Annotated[str, typer.Argument(help="Method or METHOD/PRESET.")],
    backbone: Backbone = None,
    weights: Weights = "random",
    size: Size = 256,
    batch: Annotated[int, typer.Option(help="Images per step.")] = 8,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    against: Annotated[str, typer.Option(help="Another method, to compare training steps in turn.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure training and scoring against a plain float32 loop, in turn."""
    overrides = {"weights": weights} | ({"backbone": backbone} if backbone else {})
    measured = speed.bench(
        method, size=size, batch=batch, device=device, precision=precision, overrides=overrides, against=against
    )
    if as_json:
        typer.echo(json.dumps(measured))
        return
    for name, value in measured.items():
        typer.echo(f"{name:16s} {value:.4g}" if isinstance(value, float) else f"{name:16s} {value}")


@app.command()
def doctor() -> None:
    """Say what this machine has: versions, device, precision, weights, data."""
    for package, version in versions().items():
        typer.echo(f"{package:14s} {version}")
    typer.echo(f"{'runs on':14s} {choose()}")
    for name in (teachers.DEFAULT, "resnet18", "wide_resnet50_2"):
        typer.echo(f"{'teacher':14s} {teachers.full_name(name)}: {teachers.resolve(teachers.full_name(name))}")
    typer.echo(f"{'data folder':14s} {datasets.data_folder()}")


for entry in entry_points(group="kdlib.commands"):
    app.command(entry.name)(entry.load())


def expand(arguments: Sequence[str]) -> list[str]:
    """`--seed 0 1 2` as `--seed 0 --seed 1 --seed 2`, which is how the parser knows several values."""
    expanded: list[str] = []
    repeated, has_value = "", False
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, _ = argument.partition("=")
            repeated, has_value = name if name in _SEVERAL else "", bool(equals)
        elif repeated and has_value:
            expanded.append(repeated)
        else:
            has_value = True
        expanded.append(argument)
    return expanded


def options(pairs: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` as fields of a configuration.

    Raises:
        ValueError: If a text is not NAME=VALUE.
    """
    fields = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"--option '{pair}' is not NAME=VALUE, for example fusion=product")
        fields[name] = value(text)
    return fields


def value(text: str) -> Any:
    """A value as JSON or Python writes it: `false` and `False`, `null` and `None`, lists; anything else is a text."""
    for parse in (json.loads, ast.literal_eval):
        try:
            parsed = parse(text)
        except (ValueError, SyntaxError):
            continue
        return tuple(parsed) if isinstance(parsed, list) else parsed
    return text
