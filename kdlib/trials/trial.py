"""A trial: one training and its evaluation, and everything that decides its numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch

from kdlib import methods
from kdlib.config import DistillerConfig
from kdlib.contract import teacher_of
from kdlib.data.records import Splits
from kdlib.scoring.normal_maps import NormalMaps
from kdlib.trials.names import folder_name, printable, shortened

Protocol = Literal["single", "multi"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A method, what is changed in it, how it is trained, when it is evaluated: one line of a study."""

    method: str  # name or name/preset; another toolkit's name becomes ours
    variant: str = ""  # what differs from the preset, as tables show it; empty for the preset itself
    protocol: Protocol = "multi"  # one model for all categories, or `single`: one for each
    options: Mapping[str, Any] = field(default_factory=dict)  # fields of the method's configuration
    # Lengths of training in steps at which one training is evaluated; more than one only for methods that train in one
    # phase at a constant learning rate. Empty: the preset's own length.
    stops: tuple[int, ...] = ()
    classes: int = 0  # take only so many categories, the first by name; 0 takes all
    maps: tuple[str, ...] = ("plain",)  # how level maps are scored, a row for each; see `scoring`
    half: bool = False  # evaluate what is left of the weights in 16 bits, as finished students are saved

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", methods.own_name(self.method))

    def settings(self) -> dict[str, Any]:
        """The fields of the configuration that differ from the preset, with the length of training."""
        return {**self.options, "steps": max(self.stops)} if self.stops else dict(self.options)

    def config(self) -> DistillerConfig:
        """The method's configuration.

        Raises:
            ValueError: If the method or an option is unknown, or a value does not fit its field.
        """
        return methods.configure(self.method, **self.settings())

    @cached_property
    def teacher(self) -> str:
        """Fingerprint of the teacher: other weights under the same name make another trial."""
        return teacher_of(self.config()).fingerprint()

    def written_options(self) -> str:
        """The options as a row keeps them, so that a variant that is defined anew is told from the old one."""
        return printable(" ".join(f"{name}={value}" for name, value in sorted(self.options.items())))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A recipe with a seed, on the images that are trained and tested together."""

    recipe: Recipe
    seed: int  # of the weights, the order of images, and all noise
    splits: Splits
    classes: int  # number of categories that the recipe is tried on, together or one after the other
    data: Mapping[str, str]  # fingerprint of the images of each category
    device: str = "auto"
    precision: str = "auto"
    auxiliary: str | None = None  # see `kdlib.data.auxiliary`; `None` is the default of `fit`

    @property
    def categories(self) -> tuple[str, ...]:
        return self.splits.categories

    @property
    def part(self) -> str:
        """The category, or `all`."""
        return "all" if self.recipe.protocol == "multi" else self.categories[0]

    def identity(self) -> dict[str, Any]:
        """What tells this trial from all others of a table. A trial measured anew replaces its former rows."""
        return {
            "method": self.recipe.method,
            "variant": self.recipe.variant,
            "protocol": self.recipe.protocol,
            "classes": self.classes,
            "categories": list(self.categories),
            "seed": self.seed,
            "size": list(self.splits.train.size),
        }

    def columns(self) -> dict[str, Any]:
        """What all rows of this trial have in common; the size is the height in pixels."""
        shared = self.identity() | {"options": self.recipe.written_options(), "size": self.splits.train.size[0]}
        del shared["categories"]
        return shared

    @cached_property
    def key(self) -> dict[str, Any]:
        """Everything that decides the numbers: where a file holds the same, the trial is done."""
        return self.identity() | {
            "options": self.recipe.written_options(),
            "stops": list(self.recipe.stops),
            "maps": list(self.recipe.maps),
            "half": self.recipe.half,
            "teacher": self.recipe.teacher,
            "data": {category: self.data[category] for category in self.categories},
            **({"auxiliary": self.auxiliary} if self.auxiliary else {}),
        }

    @property
    def name(self) -> str:
        """Name of the trial's file, without its suffix."""
        words = (self.recipe.method.replace("/", "-"), self.recipe.variant, self.part)
        readable = "-".join(shortened(folder_name(word), 40) for word in words if word)
        return f"{readable}-seed{self.seed}-{digest(self.identity())}"

    def __str__(self) -> str:
        part = "all categories" if self.part == "all" else self.part
        words = (self.recipe.method, self.recipe.variant, part, f"seed {self.seed}")
        return printable(", ".join(word for word in words if word))


def trials(recipe: Recipe, seed: int, splits: Splits, data: Mapping[str, str], **options: Any) -> list[Trial]:
    """The trials of a recipe with one seed: one for all categories, or one for each; `options` as of `Trial`."""
    parts = [splits] if recipe.protocol == "multi" else [splits.of(category) for category in splits.categories]
    found = []
    for part in parts:
        own = {"classes": len(part.categories)} | options
        found.append(Trial(recipe=recipe, seed=seed, splits=part, data=data, **own))
    return found


def scoring(maps: str) -> dict[str, Any]:
    """What `kdlib.calibrate` is told by `plain`, `normal`, `whitened` or `normal floor=1.0 fusion=sum`.

    Raises:
        ValueError: If there is something else.
    """
    kind, *settings = maps.split() or [""]
    named = dict(setting.partition("=")[::2] for setting in settings)
    try:
        values = {name: value if name in ("fusion", "by") else float(value) for name, value in named.items()}
        if kind in ("normal", "whitened") and named.keys() <= {"floor", "fusion", "strength", "by"}:
            NormalMaps([torch.ones(1, 1, 1, 1)], **values)  # type: ignore[arg-type]
            return {"maps": kind, **values}
        if maps == "plain":
            return {"maps": kind}
        raise ValueError("unknown word")
    except ValueError as error:
        raise ValueError(
            f"maps are '{maps}' ({error}); expected plain, normal, whitened, or settings behind one of the "
            "latter as in 'normal floor=0.75 fusion=product strength=1.0'"
        ) from error


def digest(content: Mapping[str, Any]) -> str:
    """Part of the hash of JSON content, as the part of a file's name."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
