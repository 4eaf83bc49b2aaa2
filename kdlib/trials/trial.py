"""A trial: one training and its evaluation, and everything that decides its numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from kdlib import methods, teachers
from kdlib.config import DistillerConfig
from kdlib.data.records import Splits
from kdlib.trials.names import folder_name, printable, shortened

Protocol = Literal["single", "multi"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A method, what is changed in it, how it is trained, when it is evaluated: one line of a study.

    Attributes:
        method: Name or name/preset.
        variant: What differs from the preset, as tables show it; empty for the preset itself.
        protocol: `single`, one model per category, or `multi`, one model for all.
        options: Fields of the method's configuration.
        stops: Lengths of training in steps at which one training is evaluated; more than one only for methods that
            train in one phase at a constant learning rate. Empty: the preset's own length.
        classes: Take only so many categories, the first by name; 0 takes all.
    """

    method: str
    variant: str = ""
    protocol: Protocol = "multi"
    options: Mapping[str, Any] = field(default_factory=dict)
    stops: tuple[int, ...] = ()
    classes: int = 0

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
        c = self.config()
        return teachers.teacher(
            c.backbone, c.strides, c.weights, neighbourhood=c.neighbourhood, blocks=c.teacher_blocks
        ).fingerprint()

    def written_options(self) -> str:
        """The options as a row keeps them, so that a variant that is defined anew is told from the old one."""
        return printable(" ".join(f"{name}={value}" for name, value in sorted(self.options.items())))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A recipe with a seed, on the images that are trained and tested together.

    Attributes:
        recipe: What is trained, and how.
        seed: Of the weights, the order of images, and all noise.
        splits: The images.
        classes: Number of categories that the recipe is tried on, together or one after the other.
        data: Fingerprint of the images of each category.
        device: See `kdlib.runtime`.
        precision: See `kdlib.runtime`.
    """

    recipe: Recipe
    seed: int
    splits: Splits
    classes: int
    data: Mapping[str, str]
    device: str = "auto"
    precision: str = "auto"

    @property
    def size(self) -> int:
        """Working height of the images in pixels."""
        return self.splits.train.size[0]

    @property
    def categories(self) -> tuple[str, ...]:
        return self.splits.categories

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
        """What all rows of this trial have in common."""
        return {
            "method": self.recipe.method,
            "variant": self.recipe.variant,
            "options": self.recipe.written_options(),
            "protocol": self.recipe.protocol,
            "classes": self.classes,
            "seed": self.seed,
            "size": self.size,
        }

    @cached_property
    def key(self) -> dict[str, Any]:
        """Everything that decides the numbers: where a file holds the same, the trial is done."""
        return self.identity() | {
            "options": self.recipe.written_options(),
            "stops": list(self.recipe.stops),
            "teacher": self.recipe.teacher,
            "data": {category: self.data[category] for category in self.categories},
        }

    @property
    def name(self) -> str:
        """Name of the trial's file, without its suffix."""
        part = "all" if self.recipe.protocol == "multi" else self.categories[0]
        words = (self.recipe.method.replace("/", "-"), self.recipe.variant, part)
        readable = "-".join(shortened(folder_name(word), 40) for word in words if word)
        return f"{readable}-seed{self.seed}-{digest(self.identity())}"

    def __str__(self) -> str:
        part = "all categories" if self.recipe.protocol == "multi" else self.categories[0]
        words = (self.recipe.method, self.recipe.variant, part, f"seed {self.seed}")
        return printable(", ".join(word for word in words if word))


def digest(content: Mapping[str, Any]) -> str:
    """Part of the hash of JSON content, as the part of a file's name."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]
