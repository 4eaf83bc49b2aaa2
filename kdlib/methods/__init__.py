"""The registry: every method by name, with its presets. Adding a method is one file, and its name in `_FILES`."""

from __future__ import annotations

from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from kdlib.config import DistillerConfig
from kdlib.contract import Distiller
from kdlib.methods import baselines

_FILES = ("stpm", "rd", "dnpkd", "dhkd", "snl", "baselines")


def _methods_of(module: ModuleType) -> dict[str, type[Distiller]]:
    """The methods that a file defines, by name."""
    classes = [entry for entry in vars(module).values() if isinstance(entry, type) and issubclass(entry, Distiller)]
    own = [each for each in classes if each.__module__ == module.__name__ and "name" in vars(each)]
    return {each.name: each for each in own}


_MODULES = [import_module(f"kdlib.methods.{file}") for file in _FILES]
_ALL = {name: method for module in _MODULES for name, method in _methods_of(module).items()}
_PRESETS: dict[str, dict[str, DistillerConfig]] = {
    name: module.PRESETS for module in _MODULES for name in _methods_of(module)
}
BASELINES = {name: method for name, method in _ALL.items() if issubclass(method, baselines.Baseline)}
METHODS = {name: method for name, method in _ALL.items() if name not in BASELINES}


def preset(name: str) -> DistillerConfig:
    """The configuration behind `method/preset`, for example `rd/mvtec`; a bare `rd` means `rd/quick`.

    Raises:
        ValueError: If the method or the preset is unknown.
    """
    method, _, variant = name.partition("/")
    if method not in _ALL:
        raise ValueError(f"unknown method '{method}'; expected one of {sorted(_ALL)}")
    presets = _PRESETS[method]
    variant = variant or "quick"
    if variant not in presets:
        raise ValueError(f"unknown preset '{name}'; expected one of {[f'{method}/{p}' for p in presets]}")
    return presets[variant]


def configure(name: str, **overrides: Any) -> DistillerConfig:
    """The configuration of `method` or `method/preset` with some fields changed.

    Raises:
        ValueError: If the name or a field is unknown, or a value does not fit its field.
    """
    config = preset(name)
    known = {f.name for f in fields(config)}
    if unknown := sorted(set(overrides) - known):
        raise ValueError(f"'{name}' has no setting {unknown}; it has {sorted(known)}")
    return replace(config, **{k: str(v) if isinstance(v, Path) else v for k, v in overrides.items()})


def build(name: str, *, seed: int = 0, **overrides: Any) -> Distiller:
    """A fresh, untrained method or baseline.

    Args:
        name: `method` or `method/preset`.
        seed: Seed of the student's initial weights.
        **overrides: Fields of the method's configuration, for example `backbone="resnet18", steps=500`.

    Raises:
        ValueError: If the name or a field is unknown, or a value does not fit its field.
    """
    return make(name, configure(name, **overrides), seed=seed)


def make(name: str, config: DistillerConfig, *, seed: int = 0) -> Distiller:
    """A fresh method with a whole configuration; see `build`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _ALL[name.partition("/")[0]](config)
