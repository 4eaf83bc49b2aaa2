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

_MEASURED = ("image_auroc", "pixel_auroc", "aupro", "train_seconds")
COLUMNS = (
    *("method", "variant", "options", "protocol", "classes", "category", "seed", "steps"),
    *(*_MEASURED, "size", "runtime"),
)
"""What every table has; the tables of `run` have more."""
DEFAULTS = {"maps": "plain", "data": "", "latency_ms_p50": "nan", "megabytes": "nan"}
"""Columns that older tables lack, and what their rows mean without them."""
_TRAINING = ["method", "variant", "options", "protocol", "classes", "seed", "steps", "size", "maps"]
_WHOLE_NUMBERS = ("classes", "seed", "steps", "size")


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A metric over seeds, of means over categories: mean, standard deviation (NaN of one), number of seeds."""

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
    categories = rows.groupby(_TRAINING)["category"].transform("size")
    return rows[categories >= rows["classes"].astype(int)].to_dict("records")


def read_all(path: Path, columns: Sequence[str] = COLUMNS) -> pd.DataFrame:
    """All rows of a table, every value as the text that is in the file.

    Raises:
        ValueError: If the file is damaged or lacks some of the columns.
    """
    try:
        rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8").fillna("")
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged ({error}); restore it, or move it away to start anew") from error
    for name, default in DEFAULTS.items():
        if name not in rows.columns:
            rows[name] = default
    if missing := [name for name in columns if name not in rows.columns]:
        raise ValueError(
            f"'{path}' has other columns than this version of kdlib writes: {missing} are missing, found "
            f"{list(rows.columns)}. Move it away, or choose another folder with --out."
        )
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
    if frame.empty:
        return {}
    frame[metric] = frame[metric].map(float)
    groups = frame.groupby(list(by), sort=False) if by else [((), frame)]
    return {key: _figure(group, metric) for key, group in groups}


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
        lines.append([*named, str(columns[0][key].seeds), *(str(column[key]) for column in columns)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def line(row: Mapping[str, Any]) -> str:
    """A row in one line, for the command line."""
    name = f"{row['method']} {row['variant']}".strip()
    measured = "  ".join(f"{metric} {float(row[metric]):.3f}" for metric in _MEASURED if metric in row)
    return f"{name:10s} {row['category']:20s} seed {row['seed']}  {measured}"


def means(rows: pd.DataFrame) -> str:
    """A line per method: means over categories and seeds, over those rows that have a value."""
    lines = []
    for method, group in rows.groupby("method", sort=False):
        values = group[[metric for metric in _MEASURED if metric in group]].astype(float).mean()
        measured = "  ".join(f"{metric} {value:.3f}" for metric, value in values.items())
        lines.append(f"{method:10s} {len(group):3d} rows  {measured}")
    return "\n".join(lines)


def _figure(group: pd.DataFrame, metric: str) -> Figure:
    means = [fmean(values) for _, values in group.groupby("seed", sort=False)[metric]]
    return Figure(mean=fmean(means), spread=stdev(means) if len(means) > 1 else math.nan, seeds=len(means))


def _check_numbers(rows: pd.DataFrame, path: Path) -> None:
    for name in (*_WHOLE_NUMBERS, *_MEASURED):
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
