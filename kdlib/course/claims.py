"""The ledger: what each paper claims, what we compared to check it here, and what came out.

    python -m kdlib claims

reads the studies in `data/results` and writes `data/results/claims.csv`. A claim is checked at our scale: small
images, a small teacher, hundreds of steps, products that the papers have not seen. "Does not hold here" is no
refutation. The one-model study compares methods that see the teacher's features alike, plain or averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd

from kdlib.files import write_csv
from kdlib.trials.table import Row, figures, read

COLUMNS = ("paper", "claim", "source", "data", "metric", "check", "mean", "spread", "seeds", "verdict")
_SETS = ("real", "workshop")
_MULTI, _LONG = {"protocol": "multi"}, {"protocol": "multi", "steps": "1200"}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement and the two groups of rows whose difference decides it.

    Attributes:
        paper: Who claims it.
        claim: What, in our words.
        source: Where it can be read, and how sure that is.
        study: Name of the study.
        data: Its data set.
        metric: Column that is compared; its mean over categories is taken for each seed.
        better: Values of columns of the rows that should be better.
        worse: Values of columns of the rows that they should be better than.
    """

    paper: str
    claim: str
    source: str
    study: str
    data: str
    metric: str
    better: Mapping[str, str]
    worse: Mapping[str, str]


def _on(sets: tuple[str, ...], **common: object) -> tuple[Claim, ...]:
    """The same claim on these data sets and for both metrics of the one-model study."""
    return tuple(
        Claim(study="one_model", data=data, metric=metric, **common)  # type: ignore[arg-type]
        for data in sets
        for metric in ("image_auroc", "pixel_auroc")
    )


def _ablation(paper: str, study_name: str, claim: str, source: str, worse: str, better: str = "") -> Claim:
    all_classes = {"classes": "6"}
    return Claim(
        paper=paper,
        claim=claim,
        source=source,
        study=study_name,
        data="workshop",
        metric="pixel_auroc",
        better=all_classes | {"variant": better},
        worse=all_classes | {"variant": worse},
    )


_RD = {"method": "rd", "variant": "plain"}
_FIGURE = "framework figure and code; the text was not found"
_README = "abstract in the README; design reconstructed"
_ABSTRACT = "abstract; equations reconstructed"
CLAIMS = (
    *_on(
        (*_SETS, "mill"),
        paper="SNL, DNP-KD",
        claim="one RD model for many classes gets worse the longer it trains",
        source="motivation of both; ADer's README reports it on MVTec AD",
        better=_RD | _MULTI | {"steps": "300"},
        worse=_RD | _LONG,
    ),
    *_on(
        (*_SETS, "mill"),
        paper="SNL, DNP-KD",
        claim="one RD model per class does better than one for all (600 steps each)",
        source="motivation of both",
        better=_RD | {"protocol": "single", "steps": "600"},
        worse=_RD | _MULTI | {"steps": "600"},
    ),
    *_on(
        _SETS,
        paper="SNL",
        claim="structural losses and CRAM improve RD in the multi-class setting",
        source=_ABSTRACT,
        better={"method": "snl", "variant": "plain"} | _LONG,
        worse=_RD | _LONG,
    ),
    *_on(
        _SETS,
        paper="SNL",
        claim="they still do when the teacher's features are averaged over 3 x 3 positions",
        source="our question, not the paper's",
        better={"method": "snl", "variant": "averaged features"} | _LONG,
        worse={"method": "rd", "variant": "averaged features"} | _LONG,
    ),
    *_on(
        _SETS,
        paper="DNP-KD",
        claim="a dedicated normal pattern improves RD in the multi-class setting",
        source=_FIGURE,
        better={"method": "dnpkd", "variant": "plain"} | _LONG,
        worse=_RD | _LONG,
    ),
    *_on(
        _SETS,
        paper="DNP-KD",
        claim="the same, computed as its public code does (real part of the spectrum)",
        source=_FIGURE,
        better={"method": "dnpkd", "variant": "real_only spectrum"} | _LONG,
        worse=_RD | _LONG,
    ),
    *_on(
        _SETS,
        paper="DNP-KD, SNL",
        claim="SNL's channel loss improves DNP-KD",
        source="our question, not the papers'",
        better={"method": "dnpkd", "variant": "with SNL's channel loss"} | _LONG,
        worse={"method": "dnpkd", "variant": "plain"} | _LONG,
    ),
    _ablation("DNP-KD", "dnpkd", "the masks help", _FIGURE, "no masks"),
    _ablation("DNP-KD", "dnpkd", "SubNet helps", _FIGURE, "no SubNet"),
    _ablation("DNP-KD", "dnpkd", "sparsity of the masks helps", _FIGURE, "no sparsity"),
    _ablation("DNP-KD", "dnpkd", "masks chosen by category matter", _FIGURE, "random category's masks"),
    _ablation("DNP-KD", "dnpkd", "the complex spectrum is better than its real part", _FIGURE, "real_only spectrum"),
    _ablation("SNL", "snl", "the channel loss helps", _ABSTRACT, "spatial", "+ channel"),
    _ablation("SNL", "snl", "affinity within images helps", _ABSTRACT, "+ channel", "+ intra"),
    _ablation("SNL", "snl", "affinity between images helps", _ABSTRACT, "+ intra", "+ inter"),
    _ablation("SNL", "snl", "CRAM helps", _ABSTRACT, "+ inter", "+ CRAM"),
    _ablation("DHKD", "dhkd", "a feed-forward student is better than a flow", _README, "a flow as student"),
    _ablation("DHKD", "dhkd", "noise on the student's features helps", _README, "no noise"),
    _ablation("DHKD", "dhkd", "the frequency branch helps", _README, "no frequency branch"),
    _ablation("DHKD", "dhkd", "the affinity loss helps", _README, "no affinity"),
    _ablation(
        "DHKD",
        "dhkd",
        "the student's distance is better than the flow's likelihood",
        _README,
        "likelihood of the teacher",
    ),
)


def ledger(results: Path) -> Path:
    """Checks every claim whose studies are there; returns the file with one line per claim.

    Args:
        results: Folder of the studies' files, and of `claims.csv`.
    """
    lines = []
    for claim in CLAIMS:
        path = results / f"{claim.study}_{claim.data}.csv"
        lines.append(_checked(claim, read(path) if path.exists() else []))
    write_csv(results / "claims.csv", COLUMNS, lines)
    return results / "claims.csv"


def table(results: Path, paper: str) -> str:
    """A Markdown table of one paper's lines in `claims.csv`; says so where there is none.

    Raises:
        ValueError: If `claims.csv` is damaged.
    """
    path = results / "claims.csv"
    if not path.exists():
        return "No ledger yet: `python -m kdlib claims` writes it."
    lines = ["| claim, in our words | data, metric | gain | seeds | verdict |", "| --- " * 5 + "|"]
    for row in _written(path):
        if paper in row["paper"]:
            gain = " ± ".join(value for value in (row["mean"], row["spread"]) if value)
            metric = row["metric"].replace("_auroc", " AUROC")
            lines.append(f"| {row['claim']} | {row['data']}, {metric} | {gain} | {row['seeds']} | {row['verdict']} |")
    return "\n".join(lines)


def _written(path: Path) -> list[Row]:
    """The lines of the ledger."""
    try:
        lines = pd.read_csv(path, dtype=str, keep_default_na=False)
    except ValueError as error:
        raise ValueError(f"'{path}' is damaged ({error}); `python -m kdlib claims` writes it anew") from error
    if missing := sorted(set(COLUMNS) - set(lines.columns)):
        raise ValueError(f"'{path}' lacks the columns {missing}; `python -m kdlib claims` writes it anew")
    return lines.to_dict("records")


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
