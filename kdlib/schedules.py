"""How the learning rate moves over a phase of training: what `schedule` in a configuration names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

Schedule: TypeAlias = Callable[[Optimizer], LRScheduler]
"""Builds a learning-rate schedule for an optimiser, stepped once per step."""


def named(kind: str, steps: int, *, momentum: bool = False, peak: float = 1.0) -> Schedule | None:
    """The schedule of a name over so many steps; `None` where the rate is constant.

    `cosine` falls from each group's rate to 0; `one_cycle` rises to `peak` times that rate from a 25th of it, then
    falls to next to nothing, and moves the optimiser's momentum the other way where that is asked for.
    """
    if kind == "cosine":
        return partial(CosineAnnealingLR, T_max=steps)
    if kind == "one_cycle":
        return lambda optimiser: OneCycleLR(
            optimiser,
            [peak * group["lr"] for group in optimiser.param_groups],
            total_steps=max(steps, 2),  # the last step's rate is next to nothing, and an only one would be the last
            cycle_momentum=momentum,
        )
    return None
