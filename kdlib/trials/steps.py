"""One training step of every phase of a method, as `fit` takes it, on one batch of random images: to be timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kdlib.contract import Batch, Distiller, Phase
from kdlib.data import ImageSet, Sample
from kdlib.runtime import Runtime
from kdlib.training.loader import TrainingImages, first_batches

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


class RandomImages(ImageSet):
    """Square images of noise that are in no file, of all categories in turn."""

    def __init__(self, count: int, size: int) -> None:
        samples = [Sample(path=Path(f"{i}.png"), category=CATEGORIES[i % len(CATEGORIES)]) for i in range(count)]
        super().__init__(samples, categories=CATEGORIES, size=(size, size))

    def cached(self, budget: int = 0) -> ImageSet:
        """The set itself: it is in memory."""
        return self

    def pixels(self, index: int) -> Tensor:
        """Pixels uint8 [3, H, W] of the image at this position."""
        generator = torch.Generator().manual_seed(index)
        return torch.randint(0, 256, (3, *self.size), generator=generator, dtype=torch.uint8)


def training_steps(model: Distiller, images: ImageSet, runtime: Runtime, *, as_published: bool = False) -> list[Step]:
    """A step of each phase, with all images in one batch.

    As published code does, the teacher runs in every step and the optimiser is PyTorch's default; else as in `fit`.
    """
    cache = False if as_published else None
    loader = TrainingImages(model.teacher, images, len(images), runtime, auxiliary=images, cache=cache)
    with runtime.autocast():
        pairs = list(first_batches(model, loader))
    steps = sum(phase.steps for phase, _ in pairs)
    return [Step(_step(model, phase, batch, runtime, as_published), phase.steps / steps) for phase, batch in pairs]


def _step(model: Distiller, phase: Phase, batch: Batch, runtime: Runtime, as_published: bool) -> Callable[[], None]:
    optimiser = phase.optimiser(phase.parameters)
    if as_published:
        for group in optimiser.param_groups:
            group["fused"] = False
    trained = {id(p) for p in phase.trained()}

    def take() -> None:
        model.train()
        for p in model.parameters():
            p.requires_grad_(id(p) in trained)
        with runtime.autocast():
            total = phase.loss(batch)["total"]
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        if phase.clip is not None:
            nn.utils.clip_grad_norm_(phase.trained(), phase.clip)
        optimiser.step()

    return take
