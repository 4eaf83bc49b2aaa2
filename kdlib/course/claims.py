"""The ledger: what each paper claims, what we compared to check it here, and what came out.

    python -m kdlib claims

reads the studies in `data/results` and writes `data/results/claims.csv`. A claim is checked at our scale: small
images, a small teacher, hundreds of steps, products that the papers have not seen. "Does not hold here" is no
refutation. The one-model study compares methods that see the teacher's features alike, plain or averaged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import pandas as pd

from kdlib.trials.table import Row, figures, read

LEDGER = "claims.csv"
WRITES_IT = "`python -m kdlib claims` writes it"
COLUMNS = ("paper", "claim", "source", "data", "metric", "check", "mean", "spread", "seeds", "verdict", "condition")
_TWO, _ALL = ("real", "workshop"), ("real", "workshop", "mill")
METRICS = ("image_auroc", "pixel_auroc", "aupro")
_MADE = "images made for this question"
_LOOKED = "averaging was chosen after a look at these photographs"


@dataclass(frozen=True)
class Claim:
    """One statement and the two groups of rows whose difference decides it."""

    paper: str
    claim: str  # in our words
    source: str  # where it can be read, and how sure that is
    study: str
    data: str
    metric: str  # column that is compared; its mean over categories is taken for each seed
    better: Mapping[str, str]  # values of columns of the rows that should be better
    worse: Mapping[str, str]  # values of columns of the rows that they should be better than
    condition: str = ""  # what a reader should know about the images before believing the line


def _one_model(
    paper: str, claim: str, source: str, better: dict[str, str], worse: dict[str, str], sets: Sequence[str] = _TWO
) -> list[Claim]:
    """The same claim on several data sets and for all metrics of the one-model study."""
    averaged = "averaged features" in (better["variant"], worse["variant"])
    conditions = {"mill": _MADE, "real": _LOOKED if averaged else ""}
    claims = []
    for data in sets:
        for metric in METRICS:
            condition = conditions.get(data, "")
            claims.append(Claim(paper, claim, source, "one_model", data, metric, better, worse, condition))
    return claims


def _ablation(paper: str, claim: str, source: str, worse: str, better: str = "") -> list[Claim]:
    """One variant of a method's own study against another, by default against the preset."""
    study = paper.replace("-", "").lower()
    one, other = ({"classes": "6", "variant": variant} for variant in (better, worse))
    return [Claim(paper, claim, source, study, "workshop", metric, one, other) for metric in METRICS]


def _trained(method: str, variant: str = "plain", steps: str = "1200", protocol: str = "multi") -> dict[str, str]:
    return {"method": method, "variant": variant, "protocol": protocol, "steps": steps}


_RD = _trained("rd")
_BOTH = "SNL, DNP-KD"
_MOTIVE = "motivation of both; ADer's README reports it on MVTec AD"
_FIGURE = "framework figure and code; the text was not found"
_README = "abstract in the README; design reconstructed"
_ABSTRACT = "abstract; equations reconstructed"
_AVERAGED = "they still do when the teacher's features are averaged over 3 x 3 positions"
_PUBLIC = "the same, computed as its public code does (real part of the spectrum)"
_LONGER = "one RD model for many classes gets worse the longer it trains"
_SINGLE = "one RD model per class does better than one for all (600 steps each)"
CLAIMS = (
    *_one_model(_BOTH, _LONGER, _MOTIVE, _trained("rd", steps="300"), _RD, _ALL),
    *_one_model(
        _BOTH,
        _SINGLE,
        "motivation of both",
        _trained("rd", steps="600", protocol="single"),
        _trained("rd", steps="600"),
        _ALL,
    ),
    *_one_model(
        "SNL", "structural losses and CRAM improve RD in the multi-class setting", _ABSTRACT, _trained("snl"), _RD
    ),
    *_one_model(
        "SNL",
        _AVERAGED,
        "our question, not the paper's",
        _trained("snl", "averaged features"),
        _trained("rd", "averaged features"),
    ),
    *_one_model(
        "DNP-KD", "a dedicated normal pattern improves RD in the multi-class setting", _FIGURE, _trained("dnpkd"), _RD
    ),
    *_one_model("DNP-KD", _PUBLIC, _FIGURE, _trained("dnpkd", "real_only spectrum"), _RD),
    *_one_model(
        "DNP-KD, SNL",
        "SNL's channel loss improves DNP-KD",
        "our question, not the papers'",
        _trained("dnpkd", "with SNL's channel loss"),
        _trained("dnpkd"),
    ),
    *_ablation("DNP-KD", "the masks help", _FIGURE, "no masks"),
    *_ablation("DNP-KD", "SubNet helps", _FIGURE, "no SubNet"),
    *_ablation("DNP-KD", "sparsity of the masks helps", _FIGURE, "no sparsity"),
    *_ablation("DNP-KD", "masks chosen by category matter", _FIGURE, "random category's masks"),
    *_ablation("DNP-KD", "the complex spectrum is better than its real part", _FIGURE, "real_only spectrum"),
    *_ablation("SNL", "the channel loss helps", _ABSTRACT, "spatial", "+ channel"),
    *_ablation("SNL", "affinity within images helps", _ABSTRACT, "+ channel", "+ intra"),
    *_ablation("SNL", "affinity between images helps", _ABSTRACT, "+ intra", "+ inter"),
    *_ablation("SNL", "CRAM helps", _ABSTRACT, "+ inter", "+ CRAM"),
    *_ablation("DHKD", "a feed-forward student is better than a flow", _README, "a flow as student"),
    *_ablation("DHKD", "noise on the student's features helps", _README, "no noise"),
    *_ablation("DHKD", "the frequency branch helps", _README, "no frequency branch"),
    *_ablation("DHKD", "the affinity loss helps", _README, "no affinity"),
    *_ablation(
        "DHKD", "the student's distance is better than the flow's likelihood", _README, "likelihood of the teacher"
    ),
)


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
