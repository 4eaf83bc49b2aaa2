"""The studies behind the tables and curves of the notebooks.

    python -m kdlib study one_model --data workshop

writes `data/results/one_model_workshop.csv`, one row per trial, category, seed and length of training. Trainings
whose rows are there already are not repeated.

`ladder` (128 px) and `finish` (`--size 256`) are what presets and the scoring of maps are chosen by; they run on the
tuning images only.
"""

from __future__ import annotations

from typing import Any

from kdlib.trials.trial import Recipe

PLAIN = {"neighbourhood": 1}
"""The teacher's features as they are, as in the papers."""
AVERAGED = {"neighbourhood": 3}
"""The teacher's features averaged over 3 x 3 positions: PatchCore's idea, in none of these papers."""

ONE_MODEL = (
    Recipe(method="rd", variant="plain", options=PLAIN, stops=(100, 300, 600, 1200)),
    Recipe(method="snl", variant="plain", options=PLAIN, stops=(300,)),
    Recipe(method="snl", variant="plain", options=PLAIN, stops=(1200,)),
    Recipe(method="dnpkd", variant="plain", options=PLAIN, stops=(300, 1200)),
    Recipe(method="rd", variant="averaged features", options=AVERAGED, stops=(300, 1200)),
    Recipe(method="snl", variant="averaged features", options=AVERAGED, stops=(300,)),
    Recipe(method="snl", variant="averaged features", options=AVERAGED, stops=(1200,)),
    Recipe(method="dnpkd", variant="real_only spectrum", options=PLAIN | {"spectrum": "real_only"}, stops=(300, 1200)),
    Recipe(method="dnpkd", variant="with SNL's channel loss", options=PLAIN | {"channel_weight": 1.0}, stops=(1200,)),
    Recipe(method="rd", variant="plain", options=PLAIN, stops=(100, 300, 600, 1200), protocol="single"),
)


def _ablations(method: str, changes: dict[str, dict[str, Any]], **common: Any) -> tuple[Recipe, ...]:
    return tuple(Recipe(method=method, variant=name, options=options, **common) for name, options in changes.items())


_SPATIAL: dict[str, Any] = PLAIN | {"channel": 0.0, "intra": 0.0, "inter": 0.0, "neck": "none"}
SNL_LADDER: dict[str, dict[str, Any]] = {
    "spatial": _SPATIAL,
    "+ channel": _SPATIAL | {"channel": 1.0},
    "+ intra": _SPATIAL | {"channel": 1.0, "intra": 1.0},
    "+ inter": PLAIN | {"neck": "none"},
    "+ CRAM": dict(PLAIN),
}
SNL_SWITCHES: dict[str, dict[str, Any]] = {
    "channel loss as in VAND-GNL": PLAIN | {"reduction": "vandgnl"},
    "global cosine": PLAIN | {"loss": "global"},
    "1 centre": PLAIN | {"centres": 1},
    "16 centres": PLAIN | {"centres": 16},
    "centres alone": PLAIN | {"rho": "zero"},
    "balanced batches": PLAIN | {"balanced": True},
    "on STPM": PLAIN | {"base": "stpm"},
}
SNL = (
    *_ablations("snl", SNL_LADDER | SNL_SWITCHES, stops=(300,)),
    *_ablations("snl", {k: SNL_LADDER[k] for k in ("spatial", "+ inter", "+ CRAM")}, stops=(300,), classes=3),
    *_ablations("snl", {k: SNL_LADDER[k] for k in ("spatial", "+ inter", "+ CRAM")}, stops=(300,), classes=1),
)

DNPKD = _ablations(
    "dnpkd",
    {
        "": {},
        "real_only spectrum": {"spectrum": "real_only"},
        "no masks": {"fafc": False},
        "no SubNet": {"subnet": False},
        "neither (plain RD)": {"fafc": False, "subnet": False},
        "true category's masks": {"selection": "oracle"},
        "random category's masks": {"selection": "random"},
        "no sparsity": {"sparsity_weight": 0.0},
        "ten times the sparsity": {"sparsity_weight": 1e-5},
        "with SSL": {"ssl_weight": 1e-5},
        "1 pooling": {"poolings": 1},
        "with SNL's channel loss": {"channel_weight": 1.0},
    },
    stops=(300,),
)

DHKD = _ablations(
    "dhkd",
    {
        "": {},
        "likelihood of the teacher": {"score": "likelihood"},
        "both scores": {"score": "both"},
        "a flow as student": {"student": "flow"},
        "no noise": {"noise": 0.0},
        "four times the noise": {"noise": 2.0},
        "no frequency branch": {"frequency": "none"},
        "gate in frequency": {"frequency": "gate"},
        "no affinity": {"affinity": 0.0},
        "ten times the affinity": {"affinity": 10.0},
        "1 coupling block": {"kernels": (1,)},
        "3 x 3 kernels": {"kernels": (3, 3, 3, 3)},
        "single couplings": {"coupling": "single"},
    },
)

_SHORT: dict[str, Any] = {"steps": 200, "batch_size": 8, "schedule": "cosine", "clip": 1.0}
_SYSTEMS: dict[str, dict[str, dict[str, Any]]] = {
    "rd": {"": {}},
    "rdpp": {"": {}, "transport between halves": {"ssot": "halves"}},
    "sspcab": {"": {}, "no loss of its own": {"neck_weight": 0.0}},
    "dbfad": {"": {}, "no branches": {"residuals": False}, "no block": {"neck": "none"}},
    "memkd": {
        "": {},
        "no normality loss": {"normality": 0.0},
        "memory never trained": {"trainable": False},
        "sharp recall": {"temperature": 0.1},
    },
    "aand": {"": {}, "no amplifier": {"amplifier": "none"}, "no hard positions": {"hardest": 0}},
}
_LIGHT: dict[str, dict[str, dict[str, Any]]] = {
    "mixedteacher": {"": {}, "pretrained student": {"student_init": "pretrained"}},
    "singlenet": {"": {}, "no Fourier path": {"ratio": 0.0}, "no low pass": {"low_pass": "none"}},
}
_PRODUCT: dict[str, dict[str, Any]] = {
    "": {},
    "all features": {"hard": 0.0},
    "no penalty": {"penalty": 0.0},
    "student alone": {"mix": 0.0},
    "no quantiles": {"quantiles": None},
}
SYSTEMS = (
    *(
        recipe
        for method, changes in _SYSTEMS.items()
        for recipe in _ablations(method, {name: _SHORT | options for name, options in changes.items()})
    ),
    *(recipe for method, changes in _LIGHT.items() for recipe in _ablations(method, changes)),
    *_ablations("efficientad", _PRODUCT, classes=1),
)
"""Each later method's own parts under plain maps, as in the papers: `quick`, where a step is as dear as RD's shortened
to 200 steps of 8 images; EfficientAD on one product, as it is made for."""

FORMS = ("plain", "normal", "normal fusion=sum", "normal floor=0.5", "normal floor=1.0", "normal strength=0.5")
_SAFE: dict[str, Any] = {"schedule": "cosine", "clip": 1.0}
LADDER = (
    Recipe(method="mean", maps=FORMS),
    Recipe(method="nearest", maps=FORMS),
    Recipe(method="stpm", maps=FORMS),
    Recipe(method="stpm", variant="falling rate", options=_SAFE, maps=FORMS),
    Recipe(method="rd", maps=FORMS),
    Recipe(method="rd", variant="falling rate", options=_SAFE, maps=FORMS),
    Recipe(method="rd", variant="falling rate, mining", options=_SAFE | {"mining": 0.9}, maps=FORMS),
    Recipe(method="rd", variant="mining", options={"mining": 0.9}, maps=FORMS),
)
_MAPS = ("plain", "normal")
_THREE = (*_MAPS, "whitened")
_ALL_MAPS = (*_MAPS, "whitened strength=0", "whitened", "whitened strength=1")
_LATER = ("rdpp", "efficientad", "sspcab", "dbfad", "mixedteacher", "singlenet", "memkd", "memkd_forward", "aand")
_MINED: dict[str, Any] = {"mining": 0.9, "steps": 2000}
FINISH = (
    Recipe(method="rd/full", maps=_ALL_MAPS),
    Recipe(method="rd/full", variant="2,000 steps", options={"steps": 2000}, maps=_MAPS),
    Recipe(method="rd/full", variant="2,000 steps, mining", options=_MINED, maps=_MAPS),
    Recipe(
        method="rd/full",
        variant="three levels, 1,200 steps, mining",
        options={"strides": (4, 8, 16), "mining": 0.9, "steps": 1200},
        maps=_MAPS,
    ),
    Recipe(method="stpm/full", maps=_ALL_MAPS),
    *(Recipe(method=method, maps=_THREE) for method in ("snl/full", "dnpkd/full", "dhkd/full", "mean")),
    *(Recipe(method=f"{method}/full", maps=_THREE) for method in _LATER),
    Recipe(
        method="dbfad/full",
        variant="branches, four levels, 1,800 steps",
        options={"residuals": True, "strides": (2, 4, 8, 16), "steps": 1800},
        maps=_THREE,
    ),
    Recipe(method="rdpp/full", variant="2,000 steps", options={"steps": 2000}, maps=_THREE),
    Recipe(method="singlenet/full", variant="one level", options={"strides": (8,), "width": None}, maps=_THREE),
    Recipe(method="sspcab/full", variant="a tenth of the neck's loss", options={"neck_weight": 0.01}, maps=_THREE),
    Recipe(method="aand/full", variant="no amplifier", options={"amplifier": "none"}, maps=_THREE),
    # How much of a whitened map is the student's, and how much is what normal features look like?
    Recipe(method="rd/full", variant="untrained", options={"steps": 1}, maps=_THREE),
    Recipe(method="stpm/full", variant="untrained", options={"steps": 1}, maps=_THREE),
    *(Recipe(method=lookup, maps=_MAPS) for lookup in ("nearest", "nearest/coreset")),
)
CHOICES = {"ladder": LADDER, "finish": FINISH}
"""Studies that settings are chosen by."""
TUNING = ("workshop", "mill")
"""Image sets that may be looked at while choosing."""

STUDIES: dict[str, tuple[Recipe, ...]] = {
    "one_model": ONE_MODEL,
    "per_category": (
        Recipe(method="dhkd", protocol="single"),
        Recipe(method="dhkd", protocol="single", variant="likelihood of the teacher", options={"score": "likelihood"}),
    ),
    "snl": SNL,
    "dnpkd": DNPKD,
    "dhkd": DHKD,
    "systems": SYSTEMS,
    **CHOICES,
}


def check_data(name: str, data: str) -> None:
    """Keeps choices away from images that are reported on.

    Raises:
        ValueError: If settings are chosen by this study, and the images are not for that.
    """
    if name in CHOICES and data not in TUNING:
        raise ValueError(
            f"settings are chosen by study '{name}', and '{data}' is for reporting; take one of {', '.join(TUNING)}"
        )
