"""The registry: every method by name, with its presets. Adding a method is one file and one line here."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from kdlib import baselines
from kdlib.methods import dhkd, dnpkd, rd, snl, stpm
from kdlib.methods.base import Distiller, DistillerConfig

METHODS: dict[str, type[Distiller]] = {
    "stpm": stpm.STPM,
    "rd": rd.RD,
    "dnpkd": dnpkd.DNPKD,
    "dhkd": dhkd.DHKD,
    "snl": snl.SNL,
}
BASELINES: dict[str, type[Distiller]] = {"mean": baselines.MeanFeature, "nearest": baselines.NearestPatch}
_PRESETS: dict[str, dict[str, Any]] = {
    "stpm": stpm.PRESETS,
    "rd": rd.PRESETS,
    "dnpkd": dnpkd.PRESETS,
    "dhkd": dhkd.PRESETS,
    "snl": snl.PRESETS,
    "mean": baselines.PRESETS,
    "nearest": baselines.PRESETS,
}


def preset(name: str) -> DistillerConfig:
    """The configuration behind ``method/preset``, for example ``rd/mvtec``; a bare ``rd`` means ``rd/quick``.

    Raises:
        ValueError: If the method or the preset is unknown.
    """
    method, _, variant = name.partition("/")
    if method not in _PRESETS:
        raise ValueError(f"unknown method '{method}'; expected one of {sorted(_PRESETS)}")
    presets: dict[str, DistillerConfig] = _PRESETS[method]
    variant = variant or "quick"
    if variant not in presets:
        raise ValueError(f"unknown preset '{name}'; expected one of {[f'{method}/{p}' for p in presets]}")
    return presets[variant]


def build(name: str, *, seed: int = 0, **overrides: Any) -> Distiller:
    """A fresh, untrained method or baseline.

    Args:
        name: ``method`` or ``method/preset``.
        seed: Seed of the student's initial weights.
        **overrides: Fields of the method's configuration, for example ``backbone="resnet18", steps=500``.

    Raises:
        ValueError: If the name or a field is unknown.
    """
    config = preset(name)
    known = {f.name for f in fields(config)}
    if unknown := sorted(set(overrides) - known):
        raise ValueError(f"'{name}' has no setting {unknown}; it has {sorted(known)}")
    overrides = {k: str(v) if isinstance(v, Path) else v for k, v in overrides.items()}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind = (METHODS | BASELINES)[name.partition("/")[0]]
        return kind(replace(config, **overrides))
