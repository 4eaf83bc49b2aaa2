"""The configuration of a run as one YAML file: every field with its meaning, and what of it a user may leave out."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from kdlib import methods, yaml_file
from kdlib.config import DistillerConfig, check_fields, check_names
from kdlib.files import expanded
from kdlib.randomness import checked_seed
from kdlib.trials.run import Settings

OPTIONS = "options"
ORDER = (
    *("method", "data", "layout", "category", "size", "white", "protocol", "maps", "seed"),
    *("auxiliary", "device", "precision", "out"),
)
"""Keys of a file in the order in which they are written; `options` follows."""


@dataclass(frozen=True, kw_only=True)
class Configuration(Settings):
    """Everything that `run`, `train`, `test`, `score` and `features` are told.

    Attributes:
        method: METHOD, or METHOD/PRESET such as `rd/full`; a bare METHOD is METHOD/quick.
        category: Categories of the data set; none: all of them.
        seed: Seeds of weights, order of images and noise; one training for each.
        out: Folder of the results: models, metrics.csv, example maps.
    """

    method: str
    out: str
    category: tuple[str, ...] | None = None
    seed: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        """Refuses what no command can work with.

        Raises:
            ValueError: If a field has another type than declared, or a list is empty, or the size is no size.
        """
        check_fields(self)
        for name, value in (("category", self.category), ("seed", self.seed)):
            if value is not None and not value:
                raise ValueError(f"{name} is an empty list; name one or more, or leave the line out")
        for seed in self.seed:
            checked_seed(seed)
        if self.size < 1:
            raise ValueError(f"size is {self.size}; expected 1 pixel or more")

    def settings(self) -> Settings:
        """What all rows of the results folder share."""
        return Settings(**{field.name: getattr(self, field.name) for field in fields(Settings)})


def completed(
    file: Path | None = None,
    given: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    examples: bool = False,
) -> Configuration:
    """A whole configuration out of a file and of what the command line says, which wins.

    Of the file's options those are taken that differ from the preset of its method; so a complete file of an unchanged
    preset is that preset.

    Args:
        file: See `read`.
        given: Values by the names of the fields; `None` leaves the file's, or the default.
        options: Fields of the method's configuration.
        examples: Take rendered images and a folder below `runs` where nobody says which.

    Raises:
        ValueError: If the file does not fit, a value does not, or something is missing that has no default.
    """
    values, own = read(file) if file else ({}, {})
    values |= {name: value for name, value in (given or {}).items() if value is not None}
    if examples:
        values = {"data": "workshop", "out": f"runs/{values.get('method', '').replace('/', '-')}", **values}
    needed = {field.name for field in fields(Configuration) if field.default is MISSING} - {"overrides"}
    if missing := sorted(needed - values.keys()):
        it = "it" if len(missing) == 1 else "them"
        where = f"add {it} to '{file}'" if file else "name a file with --config"
        verb = "is" if len(missing) == 1 else "are"
        raise ValueError(f"{' and '.join(missing)} {verb} missing; {where}, or give {it} on the command line")
    values["method"] = methods.own_name(values["method"])
    for name in ("data", "out"):  # no shell has seen what a file says
        if isinstance(values[name], str) and values[name].startswith("~"):
            values[name] = str(expanded(values[name]))
    try:
        preset = methods.preset(values["method"])
        check_names(options or {}, [field.name for field in fields(preset)], f"'{values['method']}'")
        return Configuration(**values, overrides={"weights": preset.weights, **own, **(options or {})})
    except ValueError as error:
        raise ValueError(f"'{file}': {error}" if file else str(error)) from None


def read(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values that a file gives, and those of its options that differ from its method's preset.

    Raises:
        ValueError: If it is no YAML of named values, a key is unknown or stands there twice, or an option does not fit.
    """
    nodes = yaml_file.mapping(file)
    section = nodes.pop(OPTIONS, None)
    owner = f"'{file}'"
    _check_places(nodes, owner)
    hints = get_type_hints(Configuration)
    values = {name: value for name, value in yaml_file.values(nodes, hints, owner).items() if value != ""}
    if section is None or yaml_file.is_nothing(section):
        return values, {}
    if "method" not in values:
        raise ValueError(f"{owner} has options but no 'method'; add a line like 'method: rd/full'")
    try:
        return values, _differing(section, values["method"], owner)
    except ValueError as error:
        text = str(error)
        raise ValueError(text if text.startswith(owner) else f"{owner}: {text}") from None


def _differing(section: Any, method: str, owner: str) -> dict[str, Any]:
    """The values below `options` that differ from a method's preset."""
    preset = methods.preset(method)
    known = [field.name for field in fields(preset)]
    named = yaml_file.entries(section, f"{owner}, options")
    for name in named:
        if name in ORDER and name not in known:
            raise ValueError(f"'{name}' stands below options; move it to the beginning of a line")
    check_names(named, known, f"{owner}: '{method}'")
    config = methods.configure(method, **yaml_file.values(named, get_type_hints(type(preset)), owner))
    return {name: getattr(config, name) for name in known if getattr(config, name) != getattr(preset, name)}


def written(configuration: Configuration) -> str:
    """A complete file: every field with its meaning, what it may hold, and its value."""
    config = methods.configure(configuration.method, **configuration.overrides)
    regular = [field.name for field in fields(config) if not field.metadata.get("ablation")]
    study = [field.name for field in fields(config) if field.metadata.get("ablation")]
    return "\n".join((
        _HEAD.format(method=configuration.method),
        _origin(configuration.method),
        yaml_file.commented(configuration, ORDER),
        f"# Settings of the method; a line that is left out is as in {configuration.method}.",
        f"{OPTIONS}:",
        yaml_file.commented(config, (*regular, *study), indent="  "),
    ))  # fmt: skip


def _origin(method: str) -> str:
    """Paper and differences from it, as a comment: what of the method is published, and what is reconstructed."""
    paragraphs = re.split(r"\n(?=\S)", methods.described(method))
    told = [p.strip() for p in paragraphs if re.match("(Paper|Method|Loss, paper|Differs|RECONSTR|Not the paper)", p)]
    return textwrap.indent("\n".join((*told, "")), "# ")


def _check_places(nodes: Mapping[str, Any], owner: str) -> None:
    """Refuses unknown keys, and says where an option belongs that stands outside of `options`."""
    for name in nodes:
        if name not in ORDER and name in {field.name for field in fields(DistillerConfig)}:
            raise ValueError(f"{owner}: '{name}' belongs below '{OPTIONS}:', indented by two blanks")
    check_names(nodes, [*ORDER, OPTIONS], owner)


_HEAD = """\
# Configuration of {method} for kdlib. Say that this file is my.yaml:
#
#   python -m kdlib run --config my.yaml              train, calibrate, evaluate, compare
#   python -m kdlib train --config my.yaml            train and calibrate, save the detectors
#   python -m kdlib test --config my.yaml             evaluate the saved detectors
#   python -m kdlib score --config my.yaml part.png   score images; exit code 2 if one is anomalous
#
# What the command line says wins over this file. A line that is left out has its default. Paths start in the folder in
# which the command runs.
"""
