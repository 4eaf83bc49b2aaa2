"""The training images as `fit` and the methods see them: batches with the teacher's features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from kdlib.contract import Batch
from kdlib.data.records import ImageSet
from kdlib.runtime import Runtime
from kdlib.training.cache import TeacherCache, worth_caching


class TrainingImages:
    """Iterating gives all images once and in order, for statistics; `training` gives the shuffled batches of a phase.

    Args:
        teacher: The frozen teacher.
        images: Normal images.
        batch_size: Images at a time when iterating in order.
        how: Where and how the teacher runs.
        cache: Compute the teacher's features once; `None` decides by device and size.
        workers: Processes that read images.
        progress: Show a bar while the teacher's features are computed.
    """

    def __init__(
        self,
        teacher: nn.Module,
        images: ImageSet,
        batch_size: int,
        how: Runtime,
        *,
        cache: bool | None = None,
        workers: int = 0,
        progress: bool = False,
    ) -> None:
        self.teacher, self.how, self.workers, self.progress = teacher, how, workers, progress
        self.images = images.cached()
        self.categories = images.categories
        self.batch_size = min(batch_size, len(images))
        self._wanted = cache

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Batch]:
        return map(self._batch, self._items(self._in_order()))

    @property
    def held_out(self) -> TrainingImages:
        """Normal images for statistics."""
        return self

    @cached_property
    def cache(self) -> TeacherCache | None:
        """The teacher's features, computed when a first batch needs them; `None` where computing anew is better."""
        wanted = self._wanted
        if wanted is None:
            wanted = worth_caching(self.teacher, self.images[0]["image"][None], len(self), self.how)
        if not wanted:
            return None
        ordered = (items["image"] for items in self._items(self._in_order()))
        return TeacherCache(self.teacher, ordered, len(self), self.how, progress=self.progress)

    def training(
        self,
        batch_size: int,
        steps: range,
        seed: int,
        *,
        process: int = 0,
        processes: int = 1,
        balanced: bool = False,
    ) -> Iterator[Batch]:
        """Shuffled batches of these steps, of which each process takes its share.

        `balanced` ones show all categories equally often, see `shuffled_evenly`.

        Raises:
            ValueError: If there are fewer images in a batch than processes.
        """
        size = min(batch_size, len(self))
        if size < processes:
            raise ValueError(
                f"batch size is {size}, fewer than the {processes} processes; give each at least one image"
            )
        share = slice(process, size // processes * processes, processes)
        if balanced:
            shown = [sample.category for sample in self.images.samples]
            groups = [[i for i, name in enumerate(shown) if name == own] for own in sorted(set(shown))]
            plan = [shuffled_evenly(groups, size, step, seed) for step in steps]
        else:
            plan = [shuffled(len(self), size, step, seed) for step in steps]
        return map(self._batch, self._items([chosen[share] for chosen in plan]))

    def _in_order(self) -> list[list[int]]:
        positions = list(range(len(self)))
        return [positions[i : i + self.batch_size] for i in range(0, len(self), self.batch_size)]

    def _items(self, plan: Sequence[list[int]]) -> DataLoader[dict[str, Tensor]]:
        # A generator of its own: reading images must not change what a method draws next.
        own = torch.Generator().manual_seed(0)
        images: Any = self.images
        return DataLoader(images, batch_sampler=plan, num_workers=self.workers, generator=own)

    def _batch(self, items: dict[str, Tensor]) -> Batch:
        teacher = None if self.cache is None else self.cache[items["index"]]
        batch = Batch(image=self.how.images(items["image"]), category=items["category"], teacher=teacher)
        return batch.to(self.how.device)


def shuffled(count: int, size: int, step: int, seed: int) -> list[int]:
    """The images of one step: an endless row of shuffled epochs, cut into full batches.

    A pure function of its arguments, so that any step can be repeated. Every image is seen equally often, and no batch
    is too small for batch normalisation.
    """
    return _row(count, step * size, size, seed)


def shuffled_evenly(groups: Sequence[Sequence[int]], size: int, step: int, seed: int) -> list[int]:
    """As `shuffled`, with equally many images of every group in every batch, up to one.

    A batch no smaller than the number of groups holds them all. A group's images take turns in an endless row of their
    own; the fewer they are, the more often each is seen. Places in the batch are random, or else processes that share
    it could each get half of the groups.
    """
    start, chosen = step * size, list[int]()
    for rank, group in enumerate(groups):
        # Of the places in the endless row of batches every len(groups)-th belongs to the group.
        first, end = (-((rank - place) // len(groups)) for place in (start, start + size))
        chosen += [group[i] for i in _row(len(group), first, end - first, mix(seed, rank))]
    return [chosen[i] for i in _row(size, 0, size, mix(seed, step, -4))]


def _row(count: int, start: int, size: int, seed: int) -> list[int]:
    """A piece of an endless row of shuffled epochs of `count` images."""
    chosen: list[int] = []
    while len(chosen) < size:
        epoch, offset = divmod(start + len(chosen), count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(mix(seed, epoch, -3)))
        chosen += order[offset : offset + size - len(chosen)].tolist()
    return chosen


def mix(*numbers: int) -> int:
    """One seed out of several numbers; neighbouring inputs give unrelated seeds."""
    mixed = 0x9E3779B97F4A7C15
    for n in numbers:
        mixed = ((mixed ^ (n & 0xFFFFFFFFFFFFFFFF)) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        mixed ^= mixed >> 31
    return mixed >> 1
