"""The command line of configurations and of single stages: `config`, `train`, `test`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kdlib import cli_options as given
from kdlib.runtime import processes
from kdlib.trials import stages as work
from kdlib.trials import table
from kdlib.trials.configuration import completed, written


def config(
    method: given.Method = None,
    config: given.Config = None,
    data: given.Data = None,
    out: given.Out = None,
    category: given.Category = None,
    protocol: given.Protocol = None,
    maps: given.Maps = None,
    size: given.Size = None,
    seed: given.Seed = None,
    option: given.Option = None,
) -> None:
    """Print a complete, commented configuration: python -m kdlib config rd/full > my.yaml.

    Options are written into it; --config completes a file that leaves lines out.
    """
    named: dict[str, Any] = {
        "method": method,
        "data": data,
        "out": out,
        "category": category,
        "protocol": protocol,
        "maps": maps,
    }
    named |= {"size": size, "seed": seed}
    typer.echo(written(completed(config, named, given.changes(option), examples=True)), nl=False)


def train(
    method: given.Method = None,
    config: given.Config = None,
    data: given.Data = None,
    out: given.Out = None,
    layout: given.Layout = None,
    category: given.Category = None,
    protocol: given.Protocol = None,
    maps: given.Maps = None,
    backbone: given.Backbone = None,
    weights: given.Weights = None,
    size: given.Size = None,
    white: given.White = None,
    steps: given.Steps = None,
    batch: given.Batch = None,
    seed: given.Seed = None,
    auxiliary: given.Auxiliary = None,
    device: given.Device = None,
    precision: given.PrecisionOption = None,
    option: given.Option = None,
) -> None:
    """Train and calibrate detectors, and save them in OUT/models.

    A killed training goes on when called again. `run` with the same settings takes up what was trained here.
    """
    named: dict[str, Any] = {"method": method, "data": data, "out": out, "layout": layout, "category": category}
    named |= {"protocol": protocol, "maps": maps, "size": size, "white": white, "seed": seed}
    named |= {"auxiliary": auxiliary, "device": device, "precision": precision}
    work.train(completed(config, named, given.changes(option, backbone, weights, steps, batch)), typer.echo)


def test(
    method: given.Method = None,
    config: given.Config = None,
    data: given.Data = None,
    out: given.Out = None,
    layout: given.Layout = None,
    category: given.Category = None,
    protocol: given.Protocol = None,
    maps: given.Maps = None,
    weights: given.Weights = None,
    size: given.Size = None,
    white: given.White = None,
    seed: given.Seed = None,
    device: given.Device = None,
    precision: given.PrecisionOption = None,
    option: given.Option = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Folder for metrics.csv and example maps. Default: OUT/test.", show_default=False),
    ] = None,
) -> None:
    """Evaluate detectors that `train` or `run` saved in OUT/models, on the test images of --data.

    Settings must be those of the training; --data may be another set with the same categories.
    """
    named: dict[str, Any] = {"method": method, "data": data, "out": out, "layout": layout, "category": category}
    named |= {"protocol": protocol, "maps": maps, "size": size, "white": white, "seed": seed}
    named |= {"device": device, "precision": precision}
    c = completed(config, named, given.changes(option, weights=weights))
    folder = results or Path(c.out) / "test"
    rows = work.test(c, folder, typer.echo)
    if processes().is_main_process:
        typer.echo(f"\nmean over categories and seeds\n{table.means(rows)}\n\nrows in {folder / 'metrics.csv'}")
