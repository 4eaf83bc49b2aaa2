"""The ledger: what each paper claims, what we compared to check it here, and what came out.

    python -m kdlib claims

reads the studies in `data/results` and writes `data/results/claims.csv`. A claim is checked at our scale: small
images, a small teacher, hundreds of steps, products that the papers have not seen. "Does not hold here" is no
refutation. The one-model study compares methods that see the teacher's features alike, plain or averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd

from kdlib.course.statements import CLAIMS, Claim
from kdlib.trials.table import Row, figures, read

LEDGER = "claims.csv"
WRITES_IT = "`python -m kdlib claims` writes it"
COLUMNS = ("paper", "claim", "source", "data", "metric", "check", "mean", "spread", "seeds", "verdict", "condition")


def ledger(results: Path) -> pd.DataFrame:
    """Checks every claim against the studies' files in a folder: a line per claim, columns `COLUMNS`."""
    lines = []
    for claim in CLAIMS:
        path = results / f"{claim.study}_{claim.data}.csv"
        lines.append(_checked(claim, read(path) if path.exists() else []))
    return pd.DataFrame(lines, columns=COLUMNS)


def written(results: Path) -> pd.DataFrame:
    """The ledger that a folder of results holds, as texts.

    Raises:
        ValueError: If there is none, or it is damaged.
    """
    path = results / LEDGER
    if not path.exists():
        raise ValueError(f"there is no '{path}'; {WRITES_IT}")
    try:
        lines = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged ({error}); {WRITES_IT} anew") from error
    if missing := sorted(set(COLUMNS) - set(lines.columns)):
        raise ValueError(f"'{path}' lacks the columns {missing}; {WRITES_IT} anew")
    return lines


def _checked(claim: Claim, rows: list[Row]) -> Row:
    better = _by_seed(rows, claim.metric, claim.better)
    worse = _by_seed(rows, claim.metric, claim.worse)
    gains = [better[seed] - worse[seed] for seed in better.keys() & worse.keys()]
    return {
        "paper": claim.paper,
        "claim": claim.claim,
        "source": claim.source,
        "data": claim.data,
        "metric": claim.metric,
        "check": f"{_named(claim.better)} minus {_named(claim.worse)}",
        "mean": f"{fmean(gains):+.4f}" if gains else "",
        "spread": f"{stdev(gains):.4f}" if len(gains) > 1 else "",
        "seeds": str(len(gains)),
        "verdict": _verdict(gains),
        "condition": claim.condition,
    }


def _by_seed(rows: list[Row], metric: str, chosen: Mapping[str, str]) -> dict[str, float]:
    """The metric's mean over categories for every seed, of rows that have the chosen values."""
    fitting = [row for row in rows if all(row[name] == value for name, value in chosen.items())]
    return {seed: figure.mean for (seed,), figure in figures(fitting, metric, "seed").items()}


def _verdict(gains: list[float]) -> str:
    """Three seeds or more that agree, or nothing is decided; nor is it within a standard error of zero."""
    if len(gains) < 3:
        return "too few seeds" if gains else "not measured"
    error = stdev(gains) / math.sqrt(len(gains))
    if min(gains) > 0 and fmean(gains) > error:
        return "holds here"
    return "does not hold here" if max(gains) < 0 and -fmean(gains) > error else "undecided here"


def _named(chosen: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value or '(preset)'}" for name, value in chosen.items())
