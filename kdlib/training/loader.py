"""The training images as `fit`, `bench` and the methods see them: batches with the teacher's features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from itertools import repeat
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import nn
from torch.utils.data import DataLoader, Dataset

from kdlib.contract import Batch, Distiller, Phase, View
from kdlib.data import ImageSet
from kdlib.data.auxiliary import load_auxiliary
from kdlib.randomness import Salt, mix
from kdlib.runtime import Runtime, local_processes
from kdlib.runtime import processes as all_processes
from kdlib.training.cache import TeacherCache, feature_shapes, worth_caching
from kdlib.training.order import shuffled, shuffled_evenly

MEMORY_LIMIT = 2 * 2**30

Key = tuple[int, int]
"""Position of an image in its set, and the step that shows it."""


class Reader(Dataset[dict[str, Any]]):
    """One image per key: its pixels, its category, and what a view, seeded by `seed`, makes of it."""

    def __init__(self, images: ImageSet, view: View | None = None, seed: int = 0) -> None:
        self.images, self.view, self.seed = images, view, seed

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, step = key
        # By NumPy: torch would wake all its threads for this small copy.
        image = torch.from_numpy(self.images.pixels(index).numpy().astype(np.float32) / np.float32(255))
        category = self.images.categories.index(self.images.samples[index].category)
        item: dict[str, Any] = {"image": image, "category": category, "index": index}
        if self.view is not None:
            generator = torch.Generator().manual_seed(mix(self.seed, Salt.VIEW, step, index))
            item["views"] = self.view(image, generator)
        return item


def plan(steps: Iterable[int], choose: Callable[[int], list[int]]) -> Iterator[list[Key]]:
    """The keys of one batch after another, made when they are needed; `choose` gives the images of a step."""
    for step in steps:
        yield [(index, step) for index in choose(step)]


def batches(reader: Reader, keys: Iterable[list[Key]], workers: int) -> DataLoader[dict[str, Any]]:
    """Batches of a reader's items, by name."""
    # A generator of its own: reading images must not change what a method draws next.
    own = torch.Generator().manual_seed(0)
    return DataLoader(reader, batch_sampler=keys, num_workers=workers, generator=own)


def first_batches(model: Distiller, images: TrainingImages) -> Iterator[tuple[Phase, Batch]]:
    """Every phase of a method with its first batch, for tests and benchmarks; nothing is trained."""
    for index, phase in enumerate(model.phases(images)):
        yield phase, next(images.training(phase, range(1), 0, index))


class TrainingImages:
    """Iterating gives all images once and in order, for statistics; `training` gives the shuffled batches of a phase.

    Arguments are those of `fit`; `batch_size` is for iterating in order, `held_out` are the images for statistics.
    """

    def __init__(
        self,
        teacher: nn.Module,
        images: ImageSet,
        batch_size: int,
        runtime: Runtime,
        *,
        auxiliary: ImageSet | None = None,
        held_out: ImageSet | None = None,
        cache: bool | None = None,
        workers: int = 0,
        processes: PartialState | None = None,
        progress: bool = False,
    ) -> None:
        self.teacher, self.images, self.runtime = teacher, images.cached(MEMORY_LIMIT), runtime
        self.categories, self.batch_size = images.categories, min(batch_size, len(images))
        self.workers, self.progress = workers, progress
        self.processes = processes or all_processes()
        self._auxiliary, self._held_out, self._wanted = auxiliary, held_out, cache

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Batch]:
        reader = Reader(self.images)
        return (self._batch(items, self.features) for items in batches(reader, self._in_order(0, 1), self.workers))

    @property
    def held_out(self) -> TrainingImages:
        """Normal images for statistics, without a cache: they are looked at once."""
        if self._held_out is None:
            return self
        options: dict[str, Any] = {"workers": self.workers, "processes": self.processes}
        return TrainingImages(self.teacher, self._held_out, self.batch_size, self.runtime, cache=False, **options)

    @cached_property
    def auxiliary(self) -> ImageSet:
        """Images of something else, for phases that ask for them; rendered textures where none are given."""
        return (self._auxiliary or load_auxiliary(size=self.images.size)).cached(MEMORY_LIMIT)

    @cached_property
    def features(self) -> TeacherCache | None:
        """The teacher's features, computed when a first batch needs them; `None` where computing anew is better."""
        if self._wanted is False:
            return None
        reader = Reader(self.images)
        shapes = feature_shapes(self.teacher, reader[0, 0]["image"][None], self.runtime)
        if self._wanted is None and not worth_caching(shapes, len(self), self.runtime):
            return None
        part, parts = self.processes.local_process_index, local_processes(self.processes)
        own = batches(reader, self._in_order(part, parts), self.workers)
        images = ((items["index"], items["image"]) for items in own)
        options = {"progress": self.progress}
        return TeacherCache(self.teacher, shapes, images, len(self), self.runtime, self.processes, **options)

    def forget_teacher(self) -> None:
        """Drops the teacher's features, which a phase has changed."""
        self.__dict__.pop("features", None)

    def training(self, phase: Phase, steps: range, *seeds: int) -> Iterator[Batch]:
        """Shuffled batches of these steps of a phase, of which each process takes its share.

        Args:
            phase: Says what a batch holds.
            steps: Numbers of the steps.
            *seeds: Decide, together, which images a step shows and what their views draw.

        Raises:
            ValueError: If there are fewer images in a batch than processes.
        """
        any_order = partial(shuffled, len(self))
        order = partial(shuffled_evenly, self._groups()) if phase.balanced else any_order
        size, own = min(phase.batch_size, len(self)), Reader(self.images, phase.view, mix(*seeds))
        main = self._shared(own, order, "batch size", size, steps, mix(*seeds, Salt.ORDER))
        plain, seed = Reader(self.images), mix(*seeds, Salt.EXEMPLAR)
        exemplars = self._shared(plain, any_order, "number of exemplars", phase.exemplars, steps, seed)
        other = self.auxiliary if phase.auxiliary else self.images
        order, seed = partial(shuffled, len(other)), mix(*seeds, Salt.AUXILIARY)
        auxiliary = self._shared(Reader(other), order, "number of auxiliary images", phase.auxiliary, steps, seed)
        features = self.features if phase.teacher_fixed else None
        for step, items, more, others in zip(steps, main, exemplars, auxiliary, strict=False):
            yield self._batch(
                items,
                features,
                progress=step / phase.steps,
                exemplars=more and self._batch(more, features),
                auxiliary=others and self.runtime.images(others["image"]),
            )

    def _shared(
        self, reader: Reader, order: Callable[..., list[int]], name: str, size: int, steps: range, seed: int
    ) -> Iterable[Any]:
        """This process's share of so many images per step; `None` for each step where they are 0."""
        rank, world = self.processes.process_index, self.processes.num_processes
        if not size:
            return repeat(None)
        if size < world:
            raise ValueError(f"{name} is {size}, fewer than the {world} processes; give each at least one image")
        keys = plan(steps, lambda step: order(size, step, seed)[rank : size // world * world : world])
        return batches(reader, keys, self.workers)

    def _groups(self) -> list[list[int]]:
        """Positions of the images of every category that has any."""
        groups: dict[str, list[int]] = {}
        for position, sample in enumerate(self.images.samples):
            groups.setdefault(sample.category, []).append(position)
        return [groups[name] for name in sorted(groups)]

    def _in_order(self, part: int, parts: int) -> Iterator[list[Key]]:
        """Every `parts`-th batch of the images in order, from batch number `part` on."""
        starts = range(part * self.batch_size, len(self), parts * self.batch_size)
        return plan(starts, lambda start: list(range(start, min(start + self.batch_size, len(self)))))

    def _batch(self, items: dict[str, Any], features: TeacherCache | None, **more: Any) -> Batch:
        batch = Batch(
            image=self.runtime.images(items["image"]),
            category=items["category"],
            teacher=None if features is None else features[items["index"]],
            views=items.get("views", {}),
            **more,
        )
        return batch.to(self.runtime.device)
