"""The command line of configurations and of single stages: `config`, `train`, `test`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdlib.cli_options import Given, configuration, takes
from kdlib.runtime import processes
from kdlib.trials import stages as work
from kdlib.trials import table
from kdlib.trials.configuration import written


@takes()
def config(*, given: Given) -> None:
    """Print a complete, commented configuration: python -m kdlib config rd/full > my.yaml.

    Options are written into it; --config completes a file that leaves lines out.
    """
    typer.echo(written(configuration(given, examples=True)), nl=False)


@takes()
def train(*, given: Given) -> None:
    """Train and calibrate detectors, and save them in OUT/models.

    A killed training goes on when called again. `run` with the same settings takes up what was trained here.
    """
    work.train(configuration(given), typer.echo)


@takes("backbone", "steps", "batch", "auxiliary")
def test(
    results: Annotated[
        Path | None,
        typer.Option(help="Folder for metrics.csv and example maps. Default: OUT/test.", show_default=False),
    ] = None,
    *,
    given: Given,
) -> None:
    """Evaluate detectors that `train` or `run` saved in OUT/models, on the test images of --data.

    Settings must be those of the training; --data may be another set with the same categories. A folder of your own
    images may have another name than in training.
    """
    c = configuration(given)
    folder = results or Path(c.out) / "test"
    rows = work.test(c, folder, typer.echo)
    if processes().is_main_process:
        typer.echo(f"\nmean over categories and seeds\n{table.means(rows)}\n\nrows in {folder / 'metrics.csv'}")
