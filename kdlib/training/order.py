"""Which images a step shows: pure functions of the step and a seed, so that any step can be repeated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from kdlib.randomness import Salt, mix


def shuffled(count: int, size: int, step: int, seed: int) -> list[int]:
    """Which of `count` images a step of `size` shows: an endless row of shuffled epochs, cut into full batches.

    Every image is seen equally often, and no batch is too small for batch normalisation.
    """
    return _stretch(count, step * size, size, seed)


def shuffled_evenly(groups: Sequence[Sequence[int]], size: int, step: int, seed: int) -> list[int]:
    """As `shuffled`, with equally many images of every group in every batch, up to one.

    A group's images take turns in an endless row of their own; the fewer they are, the more often each is seen. Places
    in the batch are random, or else processes that share it could each get half of the groups.
    """
    start, chosen = step * size, list[int]()
    for rank, group in enumerate(groups):
        # Of the places in the endless row of batches every len(groups)-th belongs to the group.
        first, end = (-((rank - place) // len(groups)) for place in (start, start + size))
        chosen += [group[i] for i in _stretch(len(group), first, end - first, mix(seed, rank))]
    return [chosen[i] for i in _stretch(size, 0, size, mix(seed, step, Salt.PLACE))]


def _stretch(count: int, start: int, size: int, seed: int) -> list[int]:
    """A piece of an endless row of shuffled epochs of `count` images."""
    chosen: list[int] = []
    while len(chosen) < size:
        epoch, offset = divmod(start + len(chosen), count)
        chosen += _epoch(count, mix(seed, epoch, Salt.EPOCH))[offset : offset + size - len(chosen)]
    return chosen


@lru_cache(maxsize=64)
def _epoch(count: int, seed: int) -> list[int]:
    """All images once. Kept, because the steps of one epoch share it."""
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return order
