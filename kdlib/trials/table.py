"""Tables of trials: rows in a file, the mean over categories, mean and spread over seeds, Markdown for readers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypeAlias

import pandas as pd

Row: TypeAlias = dict[str, str]
Rows: TypeAlias = Sequence[Mapping[str, str]] | pd.DataFrame

COLUMNS = (
    *("method", "variant", "options", "protocol", "classes", "category", "seed", "steps"),
    *("image_auroc", "pixel_auroc", "aupro", "train_seconds", "size", "runtime"),
)
"""What every table has; the tables of `run` have more."""
SHOWN = ("image_auroc", "pixel_auroc", "aupro", "train_seconds")
"""What the command line prints of a row."""
_TRAINING = ("method", "variant", "options", "protocol", "classes", "seed", "steps", "size")
_WHOLE_NUMBERS = ("classes", "seed", "steps", "size")
_NUMBERS = (*_WHOLE_NUMBERS, "image_auroc", "pixel_auroc", "aupro", "train_seconds")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A metric over seeds, of means over categories.

    Attributes:
        mean: Over seeds.
        spread: Standard deviation over seeds; NaN of one.
        seeds: How many.
    """

    mean: float
    spread: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.spread:.3f}" if self.seeds > 1 else f"{self.mean:.3f}"


def read(path: Path) -> list[Row]:
    """The rows of a table, without those of a seed whose categories are not all there yet.

    Raises:
        ValueError: If the file is damaged or no table of trials.
    """
    rows = read_all(path)
    if rows.empty:
        return []
    categories = rows.groupby(list(_TRAINING))["category"].transform("size")
    complete = rows[categories >= rows["classes"].astype(int)]
    return complete.to_dict("records")


def read_all(path: Path, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """All rows of a table, every value as the text that is in the file.

    Raises:
        ValueError: If the file is damaged or lacks some of the columns.
    """
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8")
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged ({error}); restore it, or move it away to start anew") from error
    if missing := [name for name in columns if name not in rows.columns]:
        raise ValueError(
            f"'{path}' has other columns than this version of kdlib writes: {missing} are missing, found "
            f"{list(rows.columns)}. Move it away, or choose another folder with --out."
        )
    rows = rows.fillna("")
    _check_numbers(rows, path)
    return rows


def figures(rows: Rows, metric: str, *by: str) -> dict[tuple[str, ...], Figure]:
    """Mean and spread of a metric for every combination of values in the columns `by`, in order of appearance.

    First the mean over the categories of one seed, as if they were one test; then mean and spread over seeds.

    Raises:
        ValueError: If there is no such column.
    """
    frame = pd.DataFrame(rows).copy()
    known = list(dict.fromkeys((*COLUMNS, *frame.columns)))
    if unknown := sorted({metric, *by} - set(known)):
        raise ValueError(f"the table has no columns {unknown}; it has {known}")
    found: dict[tuple[str, ...], Figure] = {}
    if frame.empty:
        return found
    frame[metric] = frame[metric].map(float)
    if not by:
        return {(): _figure(frame, metric)}
    for key, group in frame.groupby(list(by), sort=False):
        found[key] = _figure(group, metric)
    return found


def table(rows: Rows, *by: str, metrics: Sequence[str] = ("image_auroc", "pixel_auroc")) -> str:
    """A Markdown table: mean and spread over seeds of some metrics, one line per combination of values in `by`.

    Lines stand in order of appearance, or, if `by` has `steps`, short trainings before long ones.
    """
    columns = [figures(rows, metric, *by) for metric in metrics]
    keys = list(columns[0])
    if "steps" in by:
        place = by.index("steps")
        keys.sort(key=lambda key: int(key[place]))
    head = [*by, "seeds", *(metric.replace("_auroc", " AUROC").replace("aupro", "AUPRO") for metric in metrics)]
    lines = [head, ["---"] * len(head)]
    for key in keys:
        named = [value or "preset" for value in key]
        seeds = str(columns[0][key].seeds)
        measured = [str(column[key]) for column in columns]
        lines.append([*named, seeds, *measured])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def line(row: Mapping[str, Any]) -> str:
    """A row in one line, for the command line."""
    name = f"{row['method']} {row['variant']}".strip()
    measured = "  ".join(f"{metric} {float(row[metric]):.3f}" for metric in SHOWN)
    return f"{name:10s} {row['category']:20s} seed {row['seed']}  {measured}"


def means(rows: pd.DataFrame) -> str:
    """A line per method: means over categories and seeds, over those rows that have a value."""
    lines = []
    for method, group in rows.groupby("method", sort=False):
        values = group[list(SHOWN)].astype(float).mean()
        measured = "  ".join(f"{metric} {value:.3f}" for metric, value in values.items())
        lines.append(f"{method:10s} {len(group):3d} rows  {measured}")
    return "\n".join(lines)


def _figure(group: pd.DataFrame, metric: str) -> Figure:
    means = [fmean(values) for _, values in group.groupby("seed", sort=False)[metric]]
    spread = stdev(means) if len(means) > 1 else math.nan
    return Figure(mean=fmean(means), spread=spread, seeds=len(means))


def _check_numbers(rows: pd.DataFrame, path: Path) -> None:
    for name in _NUMBERS:
        known = rows[name][rows[name] != ""]
        values = pd.to_numeric(known, errors="coerce")
        wrong = values.isna() & (known.str.lower() != "nan")
        if name in _WHOLE_NUMBERS:
            wrong |= values % 1 != 0
        if wrong.any():
            line, value = wrong.idxmax() + 2, known[wrong.idxmax()]
            raise ValueError(
                f"'{path}' is damaged: line {line} has {value!r} as {name}, expected a number; restore the file, or "
                "remove the line and measure its trial again"
            )
