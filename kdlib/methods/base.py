"""The contract that every method keeps: what ``fit``, ``evaluate`` and ``score`` may ask of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar, Literal, Protocol, get_args, get_origin, get_type_hints

import torch
from torch import Tensor, nn

from kdlib import backbones, losses, maps
from kdlib.types import Batch, Losses, Pairs, Phase


@dataclass(frozen=True, kw_only=True)
class DistillerConfig:
    """What every method has; defaults are the ones most papers share.

    Attributes:
        backbone: timm name of the teacher.
        weights: ``auto``, ``hub``, ``random`` or a file; see :func:`kdlib.backbones.teacher`.
        strides: Levels of the pyramid, in pixels.
        neighbourhood: Positions over which the teacher's features are averaged; 1, as in the papers, leaves them alone.
        epochs: Passes over the training images.
        steps: Optimiser steps; replaces ``epochs`` where set.
        batch_size: Images per step.
        fusion: How level maps are fused: ``sum``, ``mean``, ``product``, ``max``.
        blur: Gaussian sigma of the anomaly map, in pixels of a 256 px image.
        align_corners: Convention when level maps are resized.
        top_k: Pixels averaged into the image score; 1 is the maximum.
        margin: Rim of the map that the image score leaves out, in pixels of a 256 px image; 0 in the papers. Networks
            pad images with zeros, and what they make of the rim is harder to imitate than the rest.
    """

    backbone: str = backbones.DEFAULT
    weights: str = "auto"
    strides: tuple[int, ...] = (4, 8, 16)
    neighbourhood: int = 1
    epochs: int = 100
    steps: int | None = None
    batch_size: int = 16
    fusion: maps.Fusion = "sum"
    blur: float = 4.0
    align_corners: bool = False
    top_k: int = 1
    margin: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what no method can work with, before anything is trained.

        Raises:
            ValueError: If a number is none, a choice is unknown, or a count is not positive.
        """
        hints = get_type_hints(type(self))
        for name, value in vars(self).items():
            choices = get_args(hints[name]) if get_origin(hints[name]) is Literal else ()
            if choices and value not in choices:
                raise ValueError(f"{name} is {value!r}; expected one of {', '.join(choices)}")
            if hints[name] in (int, float) and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise ValueError(f"{name} is {value!r}; expected a number")
        if min(self.batch_size, self.top_k, self.epochs, 1 if self.steps is None else self.steps) < 1 or self.blur < 0:
            raise ValueError(
                f"batch_size is {self.batch_size}, steps {self.steps}, epochs {self.epochs}, top_k {self.top_k}, blur "
                f"{self.blur}; expected positive numbers, or a blur of 0"
            )
        if not 0 <= self.margin < 128:
            raise ValueError(f"margin is {self.margin}; expected 0 to 127 pixels of a 256 px image")


class Loader(Protocol):
    """What a method may know of the training images before and between phases."""

    categories: tuple[str, ...]

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


class Distiller(nn.Module):
    """A frozen teacher, a student, and the map of their disagreement.

    A method gives ``pairs`` and ``loss`` and, where one phase is not enough, ``phases``.
    """

    name: ClassVar[str]
    config: DistillerConfig
    teacher: backbones.Pyramid

    def __init__(self, config: DistillerConfig) -> None:
        super().__init__()
        self.config = config
        self.teacher = backbones.teacher(
            config.backbone, config.strides, config.weights, neighbourhood=config.neighbourhood
        )

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        """Teacher and student features of images ``x`` [B, 3, H, W]; ``teacher`` hands in features computed before."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Losses:
        """Named losses of a batch, means over images; ``total`` is minimised."""
        raise NotImplementedError

    def phases(self, loader: Loader) -> Iterator[Phase]:
        """Training phases in order. Code between two yields runs between the two phases. Default: one phase."""
        yield Phase(
            name=self.name,
            parameters=self.student_parameters(),
            optimiser=self.optimiser,
            loss=self.loss,
            steps=self.steps(len(loader)),
            batch_size=self.config.batch_size,
        )

    def optimiser(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The paper's optimiser."""
        raise NotImplementedError

    def anomaly_map(self, x: Tensor) -> Tensor:
        """Anomaly map [B, 1, H, W] of images ``x`` [B, 3, H, W]; higher is more anomalous."""
        c = self.config
        how: dict[str, Any] = {"how": c.fusion, "blur": c.blur, "align_corners": c.align_corners}
        return maps.fuse(self.pairs(x), x.shape[-2:], distance=self.distance, **how)

    def distance(self, t: Tensor, s: Tensor) -> Tensor:
        """Distance [B, h, w] of features [B, C, h, w], of which the anomaly map is made. Default: one minus cosine."""
        return losses.cosine_distance(t, s)

    def image_score(self, amap: Tensor) -> Tensor:
        """Image scores [B] of anomaly maps [B, 1, H, W]."""
        return maps.image_score(amap, self.config.top_k, self.config.margin)

    def forward(self, x: Tensor) -> Tensor:
        return self.anomaly_map(x)

    def teach(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Sequence[Tensor]:
        """The teacher's features, computed without gradient unless they are handed in."""
        if teacher is not None:
            return teacher
        with torch.no_grad():
            return self.teacher(x)

    def student_parameters(self) -> list[nn.Parameter]:
        """Everything trainable outside the teacher."""
        return [p for n, p in self.named_parameters() if not n.startswith("teacher.")]

    def steps(self, images: int) -> int:
        """Optimiser steps of one phase over a training set of this many images."""
        c = self.config
        return c.steps if c.steps is not None else c.epochs * ceil(images / min(c.batch_size, images))
