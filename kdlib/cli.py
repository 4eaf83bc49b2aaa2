"""The command line: `python -m kdlib run`, `bench`, `study`, `claims`, `doctor`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer

from kdlib import data as datasets
from kdlib import teachers
from kdlib.course import claims as ledger
from kdlib.course.studies import STUDIES
from kdlib.methods import BASELINES, METHODS
from kdlib.runtime import choose, processes, versions
from kdlib.trials import experiment, speed
from kdlib.trials import study as study_engine

app = typer.Typer(help="Anomaly detection by knowledge distillation.", no_args_is_help=True, add_completion=False)
Backbone = Annotated[str | None, typer.Option(help="timm name of the teacher; default: the preset's.")]
Weights = Annotated[str, typer.Option(help="auto, hub (downloads), random, or a file.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")]
_SEVERAL = ("--category", "--seed", "--option")
_SHOWN = ("image_auroc", "pixel_auroc", "aupro", "train_seconds")


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
    backbone: Backbone = None,
    weights: Weights = "auto",
    size: Annotated[int, typer.Option(help="Working height and width in pixels.")] = 256,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps; default: the preset's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step; default: the preset's.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seeds; default 0.")] = None,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE of a method's configuration, JSON values.")
    ] = None,
) -> None:
    """Train, evaluate and compare methods on equal terms.

    --category, --seed and --option take several values: --seed 0 1 2. Methods come first.
    """
    if protocol not in ("single", "multi"):
        raise ValueError(f"--protocol is '{protocol}'; expected 'single' or 'multi'")
    given = {"backbone": backbone, "steps": steps, "batch_size": batch}
    overrides: dict[str, Any] = {k: v for k, v in given.items() if v is not None} | _options(option or [])
    settings = experiment.Settings(
        data=data,
        layout=layout,
        protocol=protocol,  # type: ignore[arg-type]
        size=size,
        overrides={"weights": weights, **overrides},
        device=device,
        precision=precision,
    )
    rows = experiment.run(settings, methods, category, seed or [0], out, _print_row)
    if processes().is_main_process:
        _print_means(rows)
        typer.echo(f"\nrows in {out / 'metrics.csv'}, example maps in {out}/CATEGORY/")


@app.command()
def bench(
    method: Annotated[str, typer.Argument(help="Method or METHOD/PRESET.")],
    backbone: Backbone = None,
    weights: Weights = "random",
    size: Annotated[int, typer.Option(help="Height and width in pixels.")] = 256,
    batch: Annotated[int, typer.Option(help="Images per step.")] = 8,
    device: Device = "auto",
    precision: PrecisionOption = "auto",
    against: Annotated[str, typer.Option(help="Another method, to compare training steps in turn.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure training and scoring against a plain float32 loop, in turn."""
    chosen = {"weights": weights} | ({"backbone": backbone} if backbone else {})
    where: dict[str, Any] = {"device": device, "precision": precision}
    found = asdict(speed.bench(method, size=size, batch=batch, overrides=chosen, against=against, **where))
    if as_json:
        typer.echo(json.dumps(found))
        return
    for name, value in found.items():
        typer.echo(f"{name:16s} {value:.4g}" if isinstance(value, float) else f"{name:16s} {value}")


@app.command()
def study(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(STUDIES)}.")],
    data: Annotated[str, typer.Option(help="Root of a data set, or 'workshop', 'mill'.")] = "workshop",
    out: Annotated[Path, typer.Option(help="Folder for NAME_DATA.csv.")] = Path("data/results"),
    size: Annotated[int, typer.Option(help="Working height and width in pixels.")] = 128,
    seed: Annotated[list[int] | None, typer.Option(help="Seeds; default 0 1 2.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only these variants; '' is the preset itself.")] = None,
) -> None:
    """Repeat, or continue, a study behind the notebooks' tables."""
    if name not in STUDIES:
        raise ValueError(f"unknown study '{name}'; expected one of {sorted(STUDIES)}")
    trials = STUDIES[name]
    if unknown := sorted(set(variant or ()) - {t.variant for t in trials}):
        raise ValueError(f"study '{name}' has no variants {unknown}; it has {sorted({t.variant for t in trials})}")
    chosen = tuple(t for t in trials if variant is None or t.variant in variant)
    typer.echo(study_engine.run(name, chosen, data, seed or [0, 1, 2], size, out))


@app.command()
def claims(
    results: Annotated[Path, typer.Option(help="Folder of the studies' files.")] = Path("data/results"),
) -> None:
    """Write the ledger: which of the papers' claims the studies bear out."""
    typer.echo(ledger.ledger(results))


@app.command()
def doctor() -> None:
    """Say what this machine has: versions, device, precision, weights, data."""
    for package, version in versions().items():
        typer.echo(f"{package:14s} {version}")
    typer.echo(f"{'runs on':14s} {choose()}")
    for name in (teachers.DEFAULT, "resnet18", "wide_resnet50_2"):
        typer.echo(f"{'teacher':14s} {teachers.full_name(name)}: {teachers.resolve(teachers.full_name(name))}")
    typer.echo(f"{'data folder':14s} {datasets.data_folder()}")


def expand(arguments: list[str]) -> list[str]:
    """`--seed 0 1 2` as `--seed 0 --seed 1 --seed 2`, which is how the parser knows several values."""
    expanded: list[str] = []
    repeated = ""
    for argument in arguments:
        if argument.startswith("--"):
            repeated = argument if argument in _SEVERAL else ""
            expanded.append(argument)
        else:
            fresh = not repeated or expanded[-1] == repeated
            expanded += [argument] if fresh else [repeated, argument]
    return expanded


def _options(pairs: list[str]) -> dict[str, Any]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--option '{pair}' is not NAME=VALUE, for example fusion=product")
        try:
            parsed = json.loads(value)
        except json.JSONDecodeError:
            parsed = value
        found[name] = tuple(parsed) if isinstance(parsed, list) else parsed
    return found


def _print_row(row: experiment.Row) -> None:
    figures = "  ".join(f"{name} {float(row[name]):.3f}" for name in _SHOWN)
    typer.echo(f"{row['method']:10s} {row['category']:20s} seed {row['seed']}  {figures}")


def _print_means(rows: list[experiment.Row]) -> None:
    """Means over categories and seeds of unrounded values, over those rows that have one."""
    typer.echo("\nmean over categories and seeds")
    for name in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == name]
        figures = "  ".join(f"{column} {_mean([float(r[column]) for r in own]):.3f}" for column in _SHOWN)
        typer.echo(f"{name:10s} {len(own):3d} rows  {figures}")


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return fmean(known) if known else math.nan
