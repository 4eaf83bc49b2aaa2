"""What a phase does to its steps: a falling rate, clipped gradients, mined positions, and how far it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

import kdlib as kd
from kdlib import losses
from kdlib.contract import Batch, Distiller, Losses, Parameters

SMALL: dict[str, Any] = {"backbone": "resnet18", "weights": "random"}


def watched(model: Distiller, rates: list[float], progress: list[float]) -> None:
    """Notes the rate and the progress of every step."""
    made: list[torch.optim.Optimizer] = []
    build: Callable[[Parameters], torch.optim.Optimizer] = model.optimiser
    loss: Callable[[Batch], Losses] = model.loss

    def optimiser(parameters: Parameters) -> torch.optim.Optimizer:
        made.append(build(parameters))
        return made[-1]

    def noted(batch: Batch) -> Losses:
        rates.append(made[-1].param_groups[0]["lr"])
        progress.append(batch.progress)
        return loss(batch)

    model.optimiser, model.loss = optimiser, noted  # type: ignore[method-assign]


@pytest.mark.parametrize("method", ["rd", "stpm", "snl"])
def test_a_cosine_rate_falls_to_nothing(tmp_path: Path, method: str) -> None:
    model = tiny.build(method, schedule="cosine", steps=4, **SMALL)
    rates: list[float] = []
    progress: list[float] = []
    watched(model, rates, progress)
    tiny.fit(model, tiny.normal(tmp_path))
    expected = [rates[0] * (1 + torch.cos(torch.tensor(step / 4 * torch.pi)).item()) / 2 for step in range(4)]
    assert rates == pytest.approx(expected, rel=1e-5)
    assert progress == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("method", ["rd", "stpm", "rdpp"])
def test_one_cycle_rises_to_every_rate_of_a_method_and_falls(tmp_path: Path, method: str) -> None:
    model = tiny.build(method, schedule="one_cycle", steps=10, **SMALL)
    optimiser = model.optimiser(model.student_parameters())
    highest = [group["lr"] for group in optimiser.param_groups]
    make = model.schedule(10)
    assert make is not None
    schedule, rates = make(optimiser), []
    for _ in range(10):
        rates.append(schedule.get_last_lr())
        optimiser.step()
        schedule.step()
    for k, rate in enumerate(highest):
        course = [each[k] for each in rates]
        assert course[0] == pytest.approx(rate / 25) and max(course) == pytest.approx(rate) and course[-1] < rate / 1000
    tiny.fit(model, tiny.normal(tmp_path))


def test_one_cycle_leaves_the_momentum_alone_unless_the_code_of_a_method_moves_it() -> None:
    for method, moves in (("rd", False), ("stpm", False), ("singlenet", True)):
        model = tiny.build(method, schedule="one_cycle", **SMALL)
        optimiser = model.optimiser(model.student_parameters())
        momenta = {name: optimiser.param_groups[0].get(name) for name in ("betas", "momentum")}
        make = model.schedule(10)
        assert make is not None
        make(optimiser)
        assert (momenta != {name: optimiser.param_groups[0].get(name) for name in momenta}) is moves


def test_one_cycle_of_one_step_moves_the_weights(tmp_path: Path) -> None:
    model = tiny.build("rd", schedule="one_cycle", steps=1, **SMALL)
    before = [p.detach().clone() for p in model.student_parameters()]
    tiny.fit(model, tiny.normal(tmp_path))
    assert any(not torch.allclose(p, b, atol=1e-5) for p, b in zip(model.student_parameters(), before, strict=True))


def test_both_phases_of_dhkd_fall_over_their_own_length(tmp_path: Path) -> None:
    images = tiny.normal(tmp_path)
    model = tiny.build("dhkd", schedule="cosine", steps=2, teacher_steps=3.0, **SMALL)
    loader = kd.training.loader.TrainingImages(model.teacher, images, 4, kd.runtime.choose("cpu", "fp32"))
    lengths = []
    for phase in model.phases(loader):
        assert phase.scheduler is not None
        optimiser = phase.optimiser(phase.parameters)
        lengths.append((phase.steps, phase.scheduler(optimiser).T_max))  # type: ignore[attr-defined]
        assert phase.clip == model.config.clip
    assert lengths == [(6, 6), (2, 2)]


def test_clipping_bounds_the_step(tmp_path: Path) -> None:
    images = tiny.normal(tmp_path)
    free, clipped = (tiny.build("stpm", steps=1, weight_decay=0.0, clip=clip, **SMALL) for clip in (None, 1e-3))
    start = [p.detach().clone() for p in clipped.student_parameters()]
    for model in (free, clipped):
        tiny.fit(model, images)
    moved = []
    for model in (free, clipped):
        changes = [(p.detach() - s).norm() for p, s in zip(model.student_parameters(), start, strict=True)]
        moved.append(torch.stack(changes).norm().item())
    assert moved[1] == pytest.approx(clipped.config.lr * 1e-3, rel=1e-2) and moved[0] > 10 * moved[1]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"clip is 0\.0; expected a positive norm, or none"):
        tiny.build("stpm", clip=0)


def test_mining_keeps_the_loss_and_shrinks_the_gradients_of_what_is_well_restored() -> None:
    torch.manual_seed(0)
    t, s = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5, requires_grad=True)
    focused = losses.focused(t, s, easy=0.5)
    assert torch.equal(focused, s)

    def gradient(features: Tensor) -> Tensor:
        (result,) = torch.autograd.grad(losses.global_cosine(t, features), s)
        return result

    ratio = (gradient(focused) / gradient(s)).mean(1)
    distance = losses.cosine_distance(t, s)
    easy = distance <= distance.flatten().sort().values[19]
    torch.testing.assert_close(ratio[easy], torch.full((20,), 0.1))
    torch.testing.assert_close(ratio[~easy], torch.ones(20))
    assert losses.focused(t, s, easy=0) is s


def test_the_mined_share_grows_over_the_first_half() -> None:
    config = kd.build("rd", mining=0.8, **SMALL).config
    t, s = torch.randn(1, 3, 10, 10), torch.randn(1, 3, 10, 10, requires_grad=True)
    shares = []
    for progress in (0.0, 0.25, 0.5, 0.9):
        ((_, focused),) = kd.methods.rd.mined([(t, s)], config, progress)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(focused.sum(), s)
        shares.append((gradient[:, 0] < 0.5).double().mean().item())
    assert shares == pytest.approx([0, 0.4, 0.8, 0.8])
    with pytest.raises(ValueError, match=r"mining is 1\.0, expected a share in"):
        kd.build("rd", mining=1.0, **SMALL)


@pytest.mark.parametrize("method", ["rd", "dnpkd", "snl"])
def test_mining_changes_what_a_student_learns(tmp_path: Path, method: str) -> None:
    images = tiny.normal(tmp_path)
    plain, mined = (tiny.build(method, steps=4, mining=mining, **SMALL) for mining in (0.0, 0.9))
    for model in (plain, mined):
        tiny.fit(model, images)
    assert not tiny.equal(plain, mined)
