"""The command line for images of one's own: `score` and `features`."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm.auto import tqdm

from kdlib.cli_options import Given, configuration, takes
from kdlib.data import DatasetError
from kdlib.feature_sheet import drawable
from kdlib.files import check_folder, write_text
from kdlib.scoring.detector import Detector
from kdlib.scoring.saving import load
from kdlib.trials import scores
from kdlib.trials import stages as work
from kdlib.trials.configuration import Configuration
from kdlib.trials.names import printable
from kdlib.trials.outputs import draw_features

Images = Annotated[
    list[str],
    typer.Argument(help="Files, folders (all images below them) and patterns such as 'shots/*.png'.", metavar="IMAGES"),
]
Saved = Annotated[
    Path | None,
    typer.Option("--detector", help="Folder of a saved detector, in place of the one that a configuration made."),
]


Product = Annotated[
    list[str] | None,
    typer.Option("--category", help="Whose detector, where a configuration made several.", show_default=False),
]
Trained = Annotated[
    list[int] | None,
    typer.Option("--seed", help="Seed of the training. Default: the first of the configuration.", show_default=False),
]


class Anomalous(SystemExit):
    """Ends the process with exit code 2: something is anomalous. Whatever fails ends with 1."""

    def __init__(self) -> None:
        super().__init__(2)


@takes(only=("config", "out", "weights", "device", "precision"))
def score(
    images: Images,
    detector: Saved = None,
    category: Product = None,
    seed: Trained = None,
    results: Annotated[
        Path | None,
        typer.Option(
            help="Folder for scores.csv and maps/*.png. Default: OUT/scores of the configuration; without one, CSV "
            "goes to standard output and no maps are kept.",
            show_default=False,
        ),
    ] = None,
    *,
    given: Given,
) -> None:
    """Score images: a CSV of scores and verdicts, and a map of each as PNG.

    Exit code 2 if an image is anomalous, 0 if all are normal, 1 if one cannot be scored or anything else is wrong.
    The CSV names image, score, threshold, verdict (normal, anomalous or error) and the PNG of the map.
    """
    judge, c = _detector(detector, given | {"category": category, "seed": seed})
    folder = results or (Path(c.out) / "scores" if c else None)
    where = {"device": c.device, "precision": c.precision} if c else _where(given)
    if folder:
        check_folder(folder)
    paths = scores.files(images, without=folder / "maps" if folder else None)
    maps = scores.map_names(paths)
    table_text = io.StringIO()
    writer = csv.writer(table_text if folder else sys.stdout, lineterminator="\n")
    writer.writerow(scores.COLUMNS)
    counts = dict.fromkeys(("normal", "anomalous", "error"), 0)
    for seen in _watched(scores.scored(judge, paths, **where, full_size=folder is not None), len(paths), bool(folder)):
        place = Path("maps") / maps[seen.path]
        if folder:
            seen = scores.kept(seen, judge.scale, folder / place)
        counts[seen.verdict] += 1
        drawn = str(place) if folder and seen.amap is not None else ""
        if seen.error:
            typer.echo(f"kdlib: {printable(seen.error)}", err=True)
        value = "" if seen.score is None else f"{seen.score:.6g}"
        name = printable(str(seen.path))
        writer.writerow((name, value, f"{judge.threshold.value:.6g}", seen.verdict, printable(drawn)))
    if folder:
        write_text(folder / "scores.csv", table_text.getvalue())
        said = ", ".join(f"{count} {word}" for word, count in counts.items() if count or word == "anomalous")
        typer.echo(f"{len(paths)} images: {said}; see {folder / 'scores.csv'} and {folder / 'maps'}")
    if counts["anomalous"]:
        raise Anomalous
    if counts["error"]:
        raise typer.Exit(1)


@takes(only=("config", "out", "weights"))
def features(
    images: Images,
    detector: Saved = None,
    category: Product = None,
    seed: Trained = None,
    level: Annotated[
        list[int] | None, typer.Option(help="Levels of the pyramid, 0 is the finest; default: all.")
    ] = None,
    channels: Annotated[int, typer.Option(help="How many of the teacher's strongest channels to draw.", min=1)] = 4,
    results: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the pictures. Default: OUT/features, or ./features with --detector.", show_default=False
        ),
    ] = None,
    *,
    given: Given,
) -> None:
    """Draw the features of teacher and student side by side, one PNG per image and level."""
    judge, c = _detector(detector, given | {"category": category, "seed": seed})
    folder = results or (Path(c.out) if c else Path()) / "features"
    check_folder(folder)
    paths = scores.files(images, without=folder, drawn="*.level*.png")
    names = scores.map_names(paths)
    levels = level if level is not None else drawable(judge)
    failed = 0
    for path in _watched(iter(paths), len(paths), True):
        for each in levels:
            drawn = folder / names[path].with_suffix(f".level{each}.png")
            try:
                typer.echo(draw_features(judge, path, each, channels, drawn))
            except (DatasetError, OSError) as error:  # of this image; what is wrong with a level ends it all
                typer.echo(f"kdlib: {printable(str(error))}", err=True)
                failed += 1
                break
    if failed:
        raise typer.Exit(1)


def _detector(folder: Path | None, given: Given) -> tuple[Detector, Configuration | None]:
    """The detector in a folder, or the one that a configuration made."""
    if folder and given["config"]:
        raise ValueError("got --detector and --config; give one of them")
    if folder:
        return load(folder, weights=given["weights"]), None
    if not given["config"]:
        raise ValueError("no detector is named; give --detector FOLDER, or --config FILE of what was trained")
    c = configuration(given)
    return work.the_detector(c), c


def _where(given: Given) -> dict[str, str]:
    """On what a detector runs that no configuration made."""
    return {name: given[name] or "auto" for name in ("device", "precision")}


def _watched(items: Iterator[Any], total: int, elsewhere: bool) -> Iterator[Any]:
    """Items with a progress bar on a terminal, where lines on standard output do not show the progress already."""
    shown = sys.stderr.isatty() and (elsewhere or not sys.stdout.isatty())
    yield from tqdm(items, total=total, unit="image", disable=not shown, leave=False)
