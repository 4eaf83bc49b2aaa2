"""What each paper claims, and the two groups of rows in a study that are compared to check it.

A source says how sure we are that the paper claims so. `kdlib.course.claims` does the comparing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


def _parts(paper: str, claim: str, source: str, better: str, worse: str, condition: str = "") -> list[Claim]:
    """One line of the study of the later systems against another, each as `method` or `method: variant`."""
    one, other = _line(better), _line(worse)
    return [Claim(paper, claim, source, "systems", "workshop", metric, one, other, condition) for metric in METRICS]


def _line(name: str) -> dict[str, str]:
    method, _, variant = name.partition(": ")
    return {"method": method, "variant": variant}


def _trained(method: str, variant: str = "plain", steps: str = "1200", protocol: str = "multi") -> dict[str, str]:
    return {"method": method, "variant": variant, "protocol": protocol, "steps": steps}


_RD = _trained("rd")
_BOTH = "SNL, DNP-KD"
_MOTIVE = "motivation of both; ADer's README reports it on MVTec AD"
_FIGURE = "framework figure and code; the text was not found"
_README = "abstract in the README; design reconstructed"
_ABSTRACT = "abstract; equations reconstructed"
_RECALLED = "the paper's ablation, from memory, unverified"
_OTHER_HOSTS = "paper, on other hosts"
_DESIGN = "abstract and code; no table was at hand"
_METAL = "brushed metal alone"
_TEXTURES = "the paper is about textures, and half of these products are not"
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
    *_parts("RD++", "projections trained on noise improve RD", "abstract and README", "rdpp", "rd"),
    *_parts(
        "RD++",
        "optimal transport between normal images helps",
        "design; its code computes 0",
        "rdpp: transport between halves",
        "rdpp",
    ),
    *_parts(
        "EfficientAD",
        "the loss of hard features alone helps",
        _RECALLED,
        "efficientad",
        "efficientad: all features",
        _METAL,
    ),
    *_parts(
        "EfficientAD", "the penalty on other images helps", _RECALLED, "efficientad", "efficientad: no penalty", _METAL
    ),
    *_parts(
        "EfficientAD", "the autoencoder's map helps", "design", "efficientad", "efficientad: student alone", _METAL
    ),
    *_parts(
        "EfficientAD",
        "maps brought to quantiles are better",
        _RECALLED,
        "efficientad",
        "efficientad: no quantiles",
        _METAL,
    ),
    *_parts("SSPCAB", "the block improves its host, here RD", _OTHER_HOSTS, "sspcab", "rd"),
    *_parts("SSPCAB", "its loss improves the block, here in RD", _OTHER_HOSTS, "sspcab", "sspcab: no loss of its own"),
    *_parts("DBFAD", "branches from one level below help", _DESIGN, "dbfad", "dbfad: no branches", _TEXTURES),
    *_parts("DBFAD", "SSPCAB helps", _DESIGN, "dbfad", "dbfad: no block", _TEXTURES),
    *_parts(
        "MixedTeacher",
        "a random second student is better than the public code's pretrained one",
        "our question, not the paper's",
        "mixedteacher",
        "mixedteacher: pretrained student",
        _TEXTURES,
    ),
    *_parts("SingleNet", "Fourier convolutions help", _DESIGN, "singlenet", "singlenet: no Fourier path", _TEXTURES),
    *_parts("SingleNet", "the low pass helps", _DESIGN, "singlenet", "singlenet: no low pass", _TEXTURES),
    *_parts("Remembering Normality", "memories improve RD", "abstract; reconstructed", "memkd", "rd"),
    *_parts(
        "Remembering Normality", "the normality loss helps", "notes of others", "memkd", "memkd: no normality loss"
    ),
    *_parts(
        "Remembering Normality",
        "trained memories are better than the public code's, which stay random",
        "our question, not the paper's",
        "memkd",
        "memkd: memory never trained",
    ),
    *_parts(
        "Remembering Normality",
        "a sharp recall (temperature 0.1) helps",
        "our question, not the paper's",
        "memkd: sharp recall",
        "memkd",
    ),
    *_parts("AAND", "amplifiers in the teacher help", "code and notes of others", "aand", "aand: no amplifier"),
    *_parts(
        "AAND", "the loss on the worst positions helps", "code and notes of others", "aand", "aand: no hard positions"
    ),
)
