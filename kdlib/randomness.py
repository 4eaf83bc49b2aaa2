"""Random numbers that depend on their seed alone: seeds mixed out of several numbers, and torch's generator on loan."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from threading import RLock
from typing import SupportsIndex

import torch

_LOCK = RLock()


class Salt(IntEnum):
    """What a seed is for, so that no two uses share one."""

    PHASE = -1  # code of a method before and between phases
    ORDER = -2  # which images a step shows
    EPOCH = -3  # the order of one epoch
    PLACE = -4  # where the images of a balanced batch stand
    VIEW = -5  # what an image is turned into in one step
    AUXILIARY = -6  # which auxiliary images a step shows
    EXEMPLAR = -7  # which exemplars a step shows
    PROCESS = -8  # what a step draws in another process than the first


HIGHEST = 2**32 - 1
"""The highest seed; NumPy's and torch's generators all take it."""


def checked_seed(seed: SupportsIndex) -> int:
    """A seed that every generator takes, as an `int`, NumPy's included.

    Raises:
        ValueError: If it is no whole number, negative or too high.
    """
    number = operator.index(seed) if hasattr(seed, "__index__") else -1
    if not 0 <= number <= HIGHEST:
        raise ValueError(f"seed is {seed!r}; expected a whole number from 0 to {HIGHEST}")
    return number


def mix(*numbers: int) -> int:
    """One seed out of several numbers; neighbouring inputs give unrelated seeds."""
    mixed = 0x9E3779B97F4A7C15
    for n in numbers:
        mixed = ((mixed ^ (n & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed >> 1


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seeds torch's generators, the CPU's and the device's, and gives them back as they were.

    One thread at a time: torch has one generator per device, and a second thread would draw from the first one's seed.
    """
    accelerated = device is not None and device.type not in ("cpu", "meta")
    kind = device.type if device is not None and accelerated else "cuda"
    with _LOCK, torch.random.fork_rng(devices=[device] if accelerated else [], device_type=kind):
        # `torch.manual_seed` would seed all GPUs, and only this device gets its state back.
        (torch.manual_seed if accelerated else torch.default_generator.manual_seed)(seed)
        yield
