"""The registry: every method by name, with its presets. Adding a method is one file, and its name in `_FILES`."""

from __future__ import annotations

from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from kdlib.config import DistillerConfig, check_kind
from kdlib.contract import Distiller
from kdlib.methods import baselines
from kdlib.randomness import checked_seed, seeded

_FILES = (
    "stpm",
    "rd",
    "dnpkd",
    "dhkd",
    "snl",
    "rdpp",
    "pdn",
    "efficientad",
    "sspcab",
    "dbfad",
    "mixedteacher",
    "singlenet",
    "memkd",
    "memkd_forward",
    "aand",
    "baselines",
)

ALIASES = {
    "st": "stpm",
    "ead": "efficientad",
    "mixed": "mixedteacher",
    "rnst": "memkd_forward",
    "rnrd": "memkd",
    "sn": "singlenet",
}
"""Names of methods in the script toolkit of the field, DistillationAD; its `rd` and `dbfad` are called so here too."""

METHODS: dict[str, type[Distiller]] = {}
BASELINES: dict[str, type[Distiller]] = {}
_PRESETS: dict[str, dict[str, DistillerConfig]] = {}


def register(module: ModuleType) -> None:
    """Enters the methods that a file defines, each under its `name`, with the file's `PRESETS`."""
    for entry in vars(module).values():
        if not isinstance(entry, type) or not issubclass(entry, Distiller):
            continue
        if entry.__module__ == module.__name__ and "name" in vars(entry):
            (BASELINES if issubclass(entry, baselines.Baseline) else METHODS)[entry.name] = entry
            _PRESETS[entry.name] = module.PRESETS


for _file in _FILES:
    register(import_module(f"kdlib.methods.{_file}"))


def own_name(name: str) -> str:
    """`method` or `method/preset` as it is called here: `stpm/full` for `st/full`. Other names stay as they are.

    Raises:
        ValueError: If it is no text.
    """
    check_kind("method", name, str, "a name such as 'rd' or 'rd/full'")
    method, slash, variant = name.partition("/")
    return ALIASES.get(method, method) + slash + variant


def described(name: str) -> str:
    """What the file of `method` or `method/preset` says of it: its paper, and what differs from that."""
    method = own_name(name).partition("/")[0]
    return import_module((METHODS | BASELINES)[method].__module__).__doc__ or ""


def preset(name: str) -> DistillerConfig:
    """The configuration behind `method/preset`, for example `rd/mvtec`; a bare `rd` means `rd/quick`.

    The method may have its name in another toolkit, see `ALIASES`.

    Raises:
        ValueError: If the method or the preset is unknown.
    """
    method, _, variant = own_name(name).partition("/")
    if method not in _PRESETS:
        raise ValueError(f"unknown method '{method}'; expected one of {sorted(_PRESETS)}")
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
    changes: dict[str, Any] = {k: str(v) if isinstance(v, Path) else v for k, v in overrides.items()}
    return replace(config, **changes)


def build(name: str, *, seed: int = 0, **overrides: Any) -> Distiller:
    """A fresh, untrained method or baseline.

    Args:
        name: `method` or `method/preset`.
        seed: Seed of the student's initial weights.
        **overrides: Fields of the method's configuration, for example `backbone="resnet18", steps=500`.

    Raises:
        ValueError: If the name or a field is unknown, or a value does not fit its field; or if the seed is none.
    """
    return make(name, configure(name, **overrides), seed=seed)


def make(name: str, config: DistillerConfig, *, seed: int = 0) -> Distiller:
    """A fresh method with a whole configuration; see `build`."""
    with seeded(checked_seed(seed)):
        return (METHODS | BASELINES)[own_name(name).partition("/")[0]](config)
