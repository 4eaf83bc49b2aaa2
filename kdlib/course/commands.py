"""The course's part of the command line: `python -m kdlib study`, `claims`. See `kdlib.commands` in pyproject.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdlib.course import claims as ledger
from kdlib.course.studies import STUDIES
from kdlib.trials import study as studies

RESULTS = Path("data/results")


def study(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(STUDIES)}.")],
    data: Annotated[str, typer.Option(help="Root of a data set, or 'workshop', 'mill'.")] = "workshop",
    out: Annotated[Path, typer.Option(help="Folder for NAME_DATA.csv.")] = RESULTS,
    size: Annotated[int, typer.Option(help="Working height and width in pixels.", min=1)] = 128,
    seed: Annotated[list[int] | None, typer.Option(help="Seeds; default 0 1 2.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only these variants; '' is the preset itself.")] = None,
) -> None:
    """Repeat, or continue, a study behind the notebooks' tables."""
    if name not in STUDIES:
        raise ValueError(f"unknown study '{name}'; expected one of {sorted(STUDIES)}")
    recipes = STUDIES[name]
    variants = {recipe.variant for recipe in recipes}
    if unknown := sorted(set(variant or ()) - variants):
        raise ValueError(f"study '{name}' has no variants {unknown}; it has {sorted(variants)}")
    chosen = [recipe for recipe in recipes if variant is None or recipe.variant in variant]
    typer.echo(studies.run(name, chosen, data, seed or [0, 1, 2], size, out, typer.echo))


def claims(results: Annotated[Path, typer.Option(help="Folder of the studies' files.")] = RESULTS) -> None:
    """Write the ledger: which of the papers' claims the studies bear out."""
    if not results.is_dir():
        raise ValueError(f"there is no folder '{results}'; name the folder of the studies' files with --results")
    typer.echo(ledger.ledger(results))
