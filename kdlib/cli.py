"""The command line: `python -m kdlib run`, its stages, `bench`, `doctor`, and what other packages add.

A package adds a command through an entry point of the group `kdlib.commands`, whose object is a function for Typer:

    [project.entry-points."kdlib.commands"]
    study = "kdlib.course.commands:study"
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated

import typer

from kdlib import cli_stages as stages
from kdlib import data as datasets
from kdlib import teachers
from kdlib.cli_options import Backbone, Given, configuration, takes
from kdlib.cli_options import options as options
from kdlib.cli_score import features, score
from kdlib.methods import BASELINES, METHODS
from kdlib.runtime import choose, processes, versions
from kdlib.trials import run as runs
from kdlib.trials import speed, table

app = typer.Typer(help="Anomaly detection by knowledge distillation.", no_args_is_help=True, add_completion=False)
_SEVERAL = ("--category", "--seed", "--option", "--variant", "--method", "--level")


@app.command()
@takes("method")
def run(
    methods: Annotated[
        list[str] | None,
        typer.Argument(
            help=f"Any of {', '.join([*METHODS, *BASELINES])}, or METHOD/PRESET; default: the configuration's.",
            show_default=False,
        ),
    ] = None,
    *,
    given: Given,
) -> None:
    """Train, evaluate and compare methods on equal terms.

    --category, --seed and --option take several values: --seed 0 1 2. Methods come first. --data and --out are needed,
    here or in the file that --config names.
    """
    c = configuration(given | {"method": methods[0] if methods else None})
    rows = runs.run(c.settings(), methods or [c.method], c.category, c.seed, Path(c.out), typer.echo)
    if processes().is_main_process:
        typer.echo(f"\nmean over categories and seeds\n{table.means(rows)}")
        typer.echo(f"\nrows in {Path(c.out) / 'metrics.csv'}, example maps in {c.out}/CATEGORY/")


for _stage in (stages.config, stages.train, stages.test, score, features):
    app.command()(_stage)


@app.command()
def bench(
    method: Annotated[str, typer.Argument(help="Method or METHOD/PRESET.")],
    backbone: Backbone = None,
    weights: Annotated[str, typer.Option(help="auto, hub (downloads), random, or a file.")] = "random",
    size: Annotated[int, typer.Option(help="Working height and width in pixels.", min=1)] = 256,
    batch: Annotated[int, typer.Option(help="Images per step.")] = 8,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    against: Annotated[str, typer.Option(help="Another method, to compare training steps in turn.")] = "",
    option: Annotated[list[str] | None, typer.Option(help="Fields of the method: NAME=VALUE.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure training and scoring against a plain float32 loop, in turn."""
    overrides = {"weights": weights} | ({"backbone": backbone} if backbone else {}) | options(option or [])
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
    several = ("--level",) if arguments[:1] in (["score"], ["features"]) else _SEVERAL  # images follow their options
    expanded: list[str] = []
    repeated, has_value = "", False
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, _ = argument.partition("=")
            repeated, has_value = name if name in several else "", bool(equals)
        elif repeated and has_value:
            expanded.append(repeated)
        else:
            has_value = True
        expanded.append(argument)
    return expanded
