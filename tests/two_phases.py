"""A method that no paper has: its second phase starts from a number that the first one's result decides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdlib import losses
from kdlib.config import DistillerConfig
from kdlib.contract import Batch, Distiller, Losses, Pairs, Phase, TrainingSet


@dataclass(frozen=True, kw_only=True)
class TwoPhasesConfig(DistillerConfig):
    steps: int | None = 6
    batch_size: int = 4
    schedule: str = "cosine"


class TwoPhases(Distiller):
    """A 1x1 convolution with batch norm and dropout per level; phase one uses SGD, phase two Adam, both a schedule."""

    name = "two_phases"
    config: TwoPhasesConfig
    drawn: Tensor
    mean: Tensor

    def __init__(self, config: TwoPhasesConfig | None = None) -> None:
        super().__init__(config or TwoPhasesConfig())
        self.students = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, c, 1), nn.BatchNorm2d(c), nn.Dropout(0.2)) for c in self.teacher.channels
        )
        self.register_buffer("drawn", torch.zeros(3))
        self.register_buffer("mean", torch.zeros(()))

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        t = self.teach(x, teacher)
        return [(f, student(f) * (1 + self.mean)) for f, student in zip(t, self.students, strict=True)]

    def loss(self, batch: Batch) -> Losses:
        noise = torch.randn_like(batch.image)
        return losses.over_levels(self.pairs(batch.image + 0.01 * noise), losses.per_position_cosine)

    def phases(self, images: TrainingSet) -> Iterator[Phase]:
        yield self._phase("first", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
        with torch.no_grad():
            self.mean.copy_(torch.stack([self.loss(batch)["total"] for batch in images]).mean())
        self.drawn.copy_(torch.rand(3))
        yield self._phase("second", lambda p: torch.optim.Adam(p, lr=0.01))

    def _phase(self, name: str, optimiser: object) -> Phase:
        return Phase(
            name=name,
            parameters=self.student_parameters(),
            optimiser=optimiser,  # type: ignore[arg-type]
            loss=self.loss,
            steps=self.steps(1),
            batch_size=self.config.batch_size,
            scheduler=self._schedule,
        )

    def _schedule(self, optimiser: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        if self.config.schedule == "cosine":
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps(1))
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=self.steps(1))


def build(seed: int = 0, **settings: object) -> TwoPhases:
    torch.manual_seed(seed)
    return TwoPhases(TwoPhasesConfig(**settings))  # type: ignore[arg-type]
