"""The few shapes that everything agrees on: a batch, teacher-student pairs, a training phase."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

Pairs: TypeAlias = list[tuple[Tensor, Tensor]]
"""One (teacher, student) pair of features [B, C, h, w] per level, equal shapes within a level, fine to coarse."""

Losses: TypeAlias = dict[str, Tensor]
"""Named scalars, means over the batch; ``total`` is the one that is minimised."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a method's loss may look at.

    Attributes:
        image: RGB in 0..1 [B, 3, H, W].
        category: Index of the product each image shows [B].
        teacher: Features of the frozen teacher per level, [B, C, h, w] each, where they were computed before.
    """

    image: Tensor
    category: Tensor
    teacher: Sequence[Tensor] | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        features = None if self.teacher is None else [t.to(device, non_blocking=True) for t in self.teacher]
        return replace(
            self,
            image=self.image.to(device, non_blocking=True),
            category=self.category.to(device, non_blocking=True),
            teacher=features,
        )


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training: what is optimised, how, on which loss, for how long.

    Attributes:
        name: Shown in progress bars and histories.
        parameters: What the optimiser may change.
        optimiser: Builds the optimiser from the parameters.
        loss: Maps a batch to named losses.
        steps: Optimiser steps.
        batch_size: Images per step, over all processes.
        scheduler: Builds a learning-rate schedule, stepped once per step.
        clip: Largest norm of the gradient over all parameters; a longer one is shortened to it. ``None``: any.
        balanced: Every batch shows all categories equally often, small ones' images more often than others'.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    optimiser: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    loss: Callable[[Batch], Losses]
    steps: int
    batch_size: int
    scheduler: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler] | None = None
    clip: float | None = None
    balanced: bool = False
