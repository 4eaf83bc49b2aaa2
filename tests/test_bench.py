"""`bench`: a step of every phase is timed, as often as the training takes it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny
import torch
from torch import Tensor

from kdlib.contract import Batch, Distiller
from kdlib.runtime import Runtime
from kdlib.training.loader import TrainingImages
from kdlib.trials import speed

CPU = Runtime(device=torch.device("cpu"))
IMAGES = speed.RandomImages(4, 64)


def state(model: Distiller) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.named_parameters()}


def changed(model: Distiller, before: dict[str, Tensor]) -> set[str]:
    return {name.partition(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}


def test_every_phase_has_a_step_that_trains_what_the_phase_trains() -> None:
    model = tiny.build("dhkd", teacher_steps=3.0)
    first, second = speed.training_steps(model, IMAGES, CPU)
    assert (first.share, second.share) == (0.75, 0.25)
    for step, part in ((first, "flows"), (second, "students")):
        before = state(model)
        step.take()
        assert changed(model, before) == {part}


@pytest.mark.parametrize("as_published", [True, False])
def test_the_teacher_runs_in_every_step_of_the_published_loop(as_published: bool) -> None:
    model = tiny.build("stpm")
    (step,) = speed.training_steps(model, IMAGES, CPU, as_published=as_published)
    calls: list[object] = []
    model.teacher.register_forward_hook(lambda *arguments: calls.append(arguments))
    step.take()
    assert len(calls) == as_published


def test_a_phase_gets_the_views_and_images_that_it_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.build("stpm")
    (phase,) = model.phases(TrainingImages(model.teacher, IMAGES, 4, CPU))
    batches: list[Batch] = []

    def loss(batch: Batch) -> dict[str, Tensor]:
        batches.append(batch)
        return model.loss(batch)

    def view(image: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"noisy": image + torch.rand(image.shape, generator=generator)}

    asking = replace(phase, loss=loss, view=view, auxiliary=2, exemplars=3)
    monkeypatch.setattr(model, "phases", lambda images: iter([asking]))
    (step,) = speed.training_steps(model, IMAGES, CPU)
    step.take()
    (one,) = batches
    assert one.views["noisy"].shape == (4, 3, 64, 64) and sorted(one.category.tolist()) == [0, 1, 2, 3]
    assert one.auxiliary is not None and len(one.auxiliary) == 2
    assert one.exemplars is not None and len(one.exemplars.image) == 3


def test_rates_are_those_of_the_mean_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "call_seconds", lambda take, *arguments, **options: [take()])
    slow_and_fast = [speed.Step(lambda: 4.0, 0.25), speed.Step(lambda: 1.0, 0.75)]
    one, other = speed._in_turn(slow_and_fast, [speed.Step(lambda: 3.5)], CPU, 3)
    assert one == [1.75] * 3 and other == [3.5] * 3 and speed._ratio(other, one) == 2
