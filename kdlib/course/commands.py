"""The course's part of the command line: `python -m kdlib study`, `claims`. See `kdlib.commands` in pyproject.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kdlib.course import leaderboard as board
from kdlib.course import severity as missed
from kdlib.course.claims import ledger
from kdlib.course.studies import STUDIES, check_data
from kdlib.files import write_text
from kdlib.trials import study as studies

RESULTS, STUDENTS = Path("data/results"), Path("data/students")


def study(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(STUDIES)}.")],
    data: Annotated[str, typer.Option(help="Root of a data set, or 'workshop', 'mill'.")] = "workshop",
    out: Annotated[Path, typer.Option(help="Folder for NAME_DATA.csv.")] = RESULTS,
    size: Annotated[int, typer.Option(help="Working height and width in pixels.", min=1)] = 128,
    white: Annotated[int | None, typer.Option(help="White level of 16-bit grey files, such as 1023 or 4095.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Seeds; default 0 1 2.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Only these variants; '' is the preset itself.")] = None,
) -> None:
    """Repeat, or continue, a study behind the notebooks' tables."""
    if name not in STUDIES:
        raise ValueError(f"unknown study '{name}'; expected one of {sorted(STUDIES)}")
    check_data(name, data)
    recipes = STUDIES[name]
    variants = {recipe.variant for recipe in recipes}
    if unknown := sorted(set(variant or ()) - variants):
        raise ValueError(f"study '{name}' has no variants {unknown}; it has {sorted(variants)}")
    chosen = [recipe for recipe in recipes if variant is None or recipe.variant in variant]
    typer.echo(studies.run(name, chosen, data, seed or [0, 1, 2], size, out, typer.echo, white))


def claims(
    results: Annotated[Path | None, typer.Option(help="Folder of other files: read and printed.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; default: claims.csv of this repository.")] = None,
) -> None:
    """Which of the papers' claims the studies bear out: `data/results/claims.csv`, the ledger."""
    folder = results or RESULTS
    if not folder.is_dir():
        raise ValueError(f"there is no folder '{folder}'; name the folder of the studies' files with --results")
    lines = ledger(folder).to_csv(index=False, lineterminator="\n")
    if results is None:
        out = out or RESULTS / "claims.csv"
    if out:
        write_text(out, lines)
    typer.echo(out or lines)


def leaderboard(
    real: Annotated[str | None, typer.Option(help="Root of a set of photographs to report on as well.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="Only these, such as rd/full or nearest.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Only the first rounds; 1: one model for the workshop.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for leaderboard.csv and the rows behind it.")] = RESULTS,
    students: Annotated[Path, typer.Option(help="Folder for the finished students.")] = STUDENTS,
) -> None:
    """Train all finished students and measure them, or continue; hours on two cores."""
    typer.echo(board.run(real, method, rounds, out, students, typer.echo))


def severity(
    method: Annotated[list[str] | None, typer.Option(help="Only these, such as rd or nearest/coreset.")] = None,
    students: Annotated[Path, typer.Option(help="Folder of the finished students.")] = STUDENTS,
    out: Annotated[Path, typer.Option(help="Folder for severity.csv.")] = RESULTS,
) -> None:
    """What finished students find of faint, middling and strong defects; a minute or two per student."""
    typer.echo(missed.run(method, students, out, typer.echo))
