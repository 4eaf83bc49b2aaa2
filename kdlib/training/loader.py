"""The training images as `fit`, `bench` and the methods see them: batches with the teacher's features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import repeat
from typing import Any

from accelerate import PartialState
from torch import nn

from kdlib.contract import Batch, Distiller, Phase
from kdlib.data import ImageSet
from kdlib.randomness import Salt, mix
from kdlib.runtime import Runtime, local_processes
from kdlib.runtime import processes as all_processes
from kdlib.training.cache import TeacherCache, feature_shapes, worth_caching
from kdlib.training.order import shuffled, shuffled_evenly
from kdlib.training.reader import Plan, Reader, batches

MEMORY_LIMIT = 2 * 2**30


def first_batches(model: Distiller, images: TrainingImages) -> Iterator[tuple[Phase, Batch]]:
    """Every phase of a method with its first batch, for tests and benchmarks; nothing is trained."""
    for index, phase in enumerate(model.phases(images)):
        yield phase, next(images.training(phase, range(1), 0, index))


class TrainingImages:
    """Iterating gives all images once and in order, for statistics; `training` gives the shuffled batches of a phase.

    Args:
        teacher: The teacher.
        images: Normal images.
        batch_size: Images at a time when iterating in order.
        runtime: Where and how the teacher runs.
        auxiliary: Images of another set, for phases that ask for them.
        held_out: Normal images for statistics; the training images where there are none.
        cache: Compute the teacher's features once; `None` decides by device and size.
        workers: Processes that read images.
        processes: The processes that share the run.
        progress: Show a bar while the teacher's features are computed.
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
        self._auxiliary = None if auxiliary is None else auxiliary.cached(MEMORY_LIMIT)
        self._held_out, self._wanted = held_out, cache
        self._cache: TeacherCache | None = None
        self._decided = False

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Batch]:
        reader = Reader(self.images)
        return (self._batch(items, self.cache()) for items in batches(reader, self._in_order(0, 1), self.workers))

    @property
    def held_out(self) -> TrainingImages:
        """Normal images for statistics, without a cache: they are looked at once."""
        if self._held_out is None:
            return self
        options: dict[str, Any] = {"workers": self.workers, "processes": self.processes}
        return TrainingImages(self.teacher, self._held_out, self.batch_size, self.runtime, cache=False, **options)

    def cache(self) -> TeacherCache | None:
        """The teacher's features, computed when a first batch needs them; `None` where computing anew is better."""
        if not self._decided:
            self._cache, self._decided = self._filled_cache(), True
        return self._cache

    def forget_teacher(self) -> None:
        """Drops the teacher's features, which a phase has changed."""
        self._cache, self._decided = None, False

    def training(self, phase: Phase, steps: range, *seeds: int) -> Iterator[Batch]:
        """Shuffled batches of these steps of a phase, of which each process takes its share.

        Args:
            phase: Says what a batch holds.
            steps: Numbers of the steps.
            *seeds: Decide, together, which images a step shows and what their views draw.

        Raises:
            ValueError: If there are fewer images in a batch than processes, or the phase asks for auxiliary images and
                there are none.
        """
        size = self._share(min(phase.batch_size, len(self)), "batch size")
        own = mix(*seeds, Salt.ORDER)
        if phase.balanced:
            groups = self._groups()
            plan = self._plan(steps, size, lambda total, step: shuffled_evenly(groups, total, step, own))
        else:
            plan = self._plan(steps, size, lambda total, step: shuffled(len(self), total, step, own))
        main = batches(Reader(self.images, phase.view, mix(*seeds)), plan, self.workers)
        cache = self.cache() if phase.teacher_fixed else None
        extra = zip(main, self._exemplars(phase, steps, *seeds), self._others(phase, steps, *seeds), strict=False)
        for step, (items, exemplars, others) in zip(steps, extra, strict=False):
            more: dict[str, Any] = {"progress": step / phase.steps}
            if exemplars is not None:
                more["exemplars"] = self._batch(exemplars, cache)
            if others is not None:
                more["auxiliary"] = self.runtime.images(others["image"])
            yield self._batch(items, cache, **more)

    def _exemplars(self, phase: Phase, steps: range, *seeds: int) -> Iterable[dict[str, Any] | None]:
        if not phase.exemplars:
            return repeat(None)
        size = self._share(phase.exemplars, "number of exemplars")
        own = mix(*seeds, Salt.EXEMPLAR)
        plan = self._plan(steps, size, lambda total, step: shuffled(len(self), total, step, own))
        return batches(Reader(self.images), plan, self.workers)

    def _others(self, phase: Phase, steps: range, *seeds: int) -> Iterable[dict[str, Any] | None]:
        if not phase.auxiliary:
            return repeat(None)
        if self._auxiliary is None:
            raise ValueError(
                f"phase '{phase.name}' needs {phase.auxiliary} auxiliary images in a batch, and there are none; give "
                "some with fit(auxiliary=...): textures or natural images of another kind"
            )
        size, count = self._share(phase.auxiliary, "number of auxiliary images"), len(self._auxiliary)
        own = mix(*seeds, Salt.AUXILIARY)
        plan = self._plan(steps, size, lambda total, step: shuffled(count, total, step, own))
        return batches(Reader(self._auxiliary), plan, self.workers)

    def _plan(self, steps: range, size: int, choose: Callable[[int, int], list[int]]) -> Plan:
        """This process's share of what is chosen for a step in all processes."""
        rank, world = self.processes.process_index, self.processes.num_processes
        return Plan(steps, lambda step: choose(size, step)[rank : size // world * world : world])

    def _share(self, size: int, name: str) -> int:
        if size < self.processes.num_processes:
            raise ValueError(
                f"{name} is {size}, fewer than the {self.processes.num_processes} processes; give each at least one "
                "image"
            )
        return size

    def _groups(self) -> list[list[int]]:
        """Positions of the images of every category that has any."""
        groups: dict[str, list[int]] = {}
        for position, sample in enumerate(self.images.samples):
            groups.setdefault(sample.category, []).append(position)
        return [groups[name] for name in sorted(groups)]

    def _in_order(self, part: int, parts: int) -> Plan:
        """Every `parts`-th batch of the images in order, from batch number `part` on."""
        starts = range(part * self.batch_size, len(self), parts * self.batch_size)
        return Plan(starts, lambda start: list(range(start, min(start + self.batch_size, len(self)))))

    def _filled_cache(self) -> TeacherCache | None:
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

    def _batch(self, items: dict[str, Any], cache: TeacherCache | None, **more: Any) -> Batch:
        batch = Batch(
            image=self.runtime.images(items["image"]),
            category=items["category"],
            teacher=None if cache is None else cache[items["index"]],
            views=items.get("views", {}),
            **more,
        )
        return batch.to(self.runtime.device)
