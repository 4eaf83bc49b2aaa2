"""One training step of every phase of a method, as `fit` takes it, on one batch of random images: to be timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kdlib.contract import Batch, Distiller, Phase, TrainingSet
from kdlib.runtime import Runtime

CATEGORIES = ("a", "b", "c", "d", "e")


@dataclass(frozen=True)
class Step:
    """Work that can be repeated.

    Attributes:
        take: Does it once.
        share: Of the steps of the whole training.
    """

    take: Callable[[], object]
    share: float = 1.0


@dataclass
class OneBatch:
    """All there is to train on, for methods that look at the training images before and between phases."""

    batch: Batch
    categories: tuple[str, ...] = CATEGORIES

    @property
    def held_out(self) -> TrainingSet:
        return self

    def __len__(self) -> int:
        return len(self.batch.image)

    def __iter__(self) -> Iterator[Batch]:
        yield self.batch


def training_steps(model: Distiller, image: Tensor, runtime: Runtime, *, as_published: bool = False) -> list[Step]:
    """A step of each phase on images [B, 3, H, W].

    As `fit` does, on a CPU the teacher's features are computed once. As published code does, they are computed in every
    step, and the optimiser is PyTorch's default.
    """
    x = runtime.images(image)
    with runtime.autocast():
        phases = list(model.phases(OneBatch(random_batch(x))))
    steps = sum(phase.steps for phase in phases)
    taken = []
    for phase in phases:
        cached = None
        if phase.teacher_fixed and runtime.device.type == "cpu" and not as_published:
            cached = teacher_features(model, x, runtime)
        take = _step(model, phase, random_batch(x, cached), runtime, as_published)
        taken.append(Step(take, phase.steps / steps))
    return taken


def teacher_features(model: Distiller, x: Tensor, runtime: Runtime) -> list[Tensor]:
    """The teacher's features [B, C, h, w] per level."""
    with torch.no_grad(), runtime.autocast():
        return list(model.teacher(x))


def random_batch(x: Tensor, teacher: list[Tensor] | None = None) -> Batch:
    """The images as a batch that shows all categories."""
    return Batch(image=x, category=torch.arange(len(x), device=x.device) % len(CATEGORIES), teacher=teacher)


def _step(model: Distiller, phase: Phase, batch: Batch, runtime: Runtime, as_published: bool) -> Callable[[], None]:
    optimiser = phase.optimiser(phase.parameters)
    if as_published:
        for group in optimiser.param_groups:
            group["fused"] = False
    generator = torch.Generator().manual_seed(0)
    trained = {id(p) for p in phase.trained()}

    def take() -> None:
        model.train()
        for p in model.parameters():
            p.requires_grad_(id(p) in trained)
        seen = _completed(batch, phase, generator)
        with runtime.autocast():
            total = phase.loss(seen)["total"]
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        if phase.clip is not None:
            nn.utils.clip_grad_norm_(phase.trained(), phase.clip)
        optimiser.step()

    return take


def _completed(batch: Batch, phase: Phase, generator: torch.Generator) -> Batch:
    """The batch with what else the phase asks for, made of the same images."""
    if phase.view is not None:
        views = [phase.view(image, generator) for image in batch.image.cpu()]
        stacked = {name: torch.stack([view[name] for view in views]).to(batch.image.device) for name in views[0]}
        batch = replace(batch, views=stacked)
    if phase.auxiliary:
        batch = replace(batch, auxiliary=_repeated(batch.image, phase.auxiliary))
    if phase.exemplars:
        batch = replace(batch, exemplars=random_batch(_repeated(batch.image, phase.exemplars)))
    return batch


def _repeated(images: Tensor, count: int) -> Tensor:
    return images[torch.arange(count, device=images.device) % len(images)]
