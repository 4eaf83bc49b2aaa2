"""What every method keeps to, those of the future too: the tests run over the registry."""

from __future__ import annotations

import random
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import kdlib as kd
from kdlib.contract import Batch, Distiller, Phase
from kdlib.methods import METHODS, configure, preset
from kdlib.runtime import Runtime
from kdlib.training.loader import TrainingImages, first_batches

pytestmark = pytest.mark.filterwarnings("ignore:.*RANDOM:UserWarning")


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(name: str) -> Distiller:
    return tiny.build(name)


@pytest.fixture
def images(tmp_path: Path) -> TrainingImages:
    """Three images, read as `fit` reads them."""
    teacher = kd.teachers.teacher()
    return TrainingImages(
        teacher, tiny.normal(tmp_path / "three", 3), 3, Runtime(device=torch.device("cpu")), cache=False
    )


@pytest.fixture
def steps(model: Distiller, images: TrainingImages) -> list[tuple[Phase, Batch]]:
    """Every phase of the method with its first batch."""
    return list(first_batches(model, images))


@pytest.fixture
def batch(steps: list[tuple[Phase, Batch]]) -> Batch:
    """The first batch of the last phase."""
    return steps[-1][1]


def teacher_state(model: Distiller) -> list[Tensor]:
    return [tensor.clone() for tensor in model.teacher.state_dict().values()]


def test_what_is_frozen_stays_frozen_and_in_eval_mode(model: Distiller, steps: list[tuple[Phase, Batch]]) -> None:
    before = teacher_state(model)
    model.train()
    frozen = [model.get_submodule(name) for name in model.frozen]
    assert not any(part.training for module in frozen for part in module.modules())
    assert any(module.training for module in model.modules()) and model.student_parameters()
    for phase, batch in steps:
        phase.loss(batch)["total"].backward()
    assert all(p.grad is None and not p.requires_grad for module in frozen for p in module.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, teacher_state(model), strict=True))


def test_training_leaves_the_teacher_alone_and_changes_the_student(model: Distiller, tmp_path: Path) -> None:
    before, students = teacher_state(model), [p.clone() for p in model.student_parameters()]
    tiny.fit(model, tiny.normal(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(before, teacher_state(model), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(students, model.student_parameters(), strict=True))
    assert not model.training


def test_pairs_have_equal_shapes_and_the_teachers_side_takes_no_gradient(model: Distiller, batch: Batch) -> None:
    pairs = model.pairs(batch.image)
    assert pairs
    for t, s in pairs:
        assert t.shape == s.shape and t.ndim == 4 and len(t) == 3
        assert not t.requires_grad and s.requires_grad


def test_losses_are_scalars_with_a_total(steps: list[tuple[Phase, Batch]]) -> None:
    for phase, batch in steps:
        named = phase.loss(batch)
        assert named["total"].requires_grad and phase.trained()
        assert all(value.shape == () and torch.isfinite(value) for value in named.values())


def test_features_handed_in_give_the_same_loss(model: Distiller, steps: list[tuple[Phase, Batch]]) -> None:
    model.eval()
    for phase, batch in steps:
        handed = replace(batch, teacher=model.teacher(batch.image))
        torch.testing.assert_close(phase.loss(handed)["total"], phase.loss(batch)["total"])


def test_loss_is_a_mean_over_the_batch(model: Distiller, steps: list[tuple[Phase, Batch]]) -> None:
    model.eval()
    for phase, batch in steps:
        with torch.no_grad():
            once, again = phase.loss(batch), phase.loss(doubled(batch))
        for term in once:
            torch.testing.assert_close(again[term], once[term], rtol=1e-4, atol=1e-6)


def doubled(batch: Batch) -> Batch:
    """Every image of a batch twice."""
    views = {name: torch.cat([view, view]) for name, view in batch.views.items()}
    image, category = torch.cat([batch.image, batch.image]), torch.cat([batch.category, batch.category])
    return replace(batch, image=image, category=category, views=views)


def test_a_fresh_student_differs_from_its_teacher(model: Distiller, batch: Batch) -> None:
    model.eval()
    t, s = model.pairs(batch.image)[-1]
    assert torch.linalg.vector_norm(t - s) > 0.1 * torch.linalg.vector_norm(t)
    assert model.anomaly_map(batch.image).amax() > 1e-4


def test_map_and_score_have_the_promised_shapes(model: Distiller, batch: Batch) -> None:
    amap = model.eval().anomaly_map(batch.image)
    assert amap.shape == (3, 1, 64, 64) and amap.dtype == torch.float32
    assert model.image_score(amap).shape == (3,)


def test_map_of_an_image_is_the_same_alone_and_in_company(model: Distiller, batch: Batch) -> None:
    model.eval()
    with torch.no_grad():
        together = model.anomaly_map(batch.image)
        alone = torch.cat([model.anomaly_map(image[None]) for image in batch.image])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)


def test_images_that_are_not_square(model: Distiller) -> None:
    x = torch.rand(2, 3, 64, 96)
    try:
        amap = model.eval().anomaly_map(x)
    except ValueError as error:
        assert "square" in str(error)  # a paper may ask for squares; the message must say so
    else:
        assert amap.shape == (2, 1, 64, 96)


def test_loss_falls_within_20_steps(name: str, tmp_path: Path) -> None:
    history = tiny.fit(tiny.build(name, steps=20), tiny.normal(tmp_path))
    for phase in dict.fromkeys(row["phase"] for row in history.rows):
        totals = [row["total"] for row in history.rows if row["phase"] == phase]
        assert sum(totals[-3:]) / 3 < 0.9 * totals[0], (phase, totals)


def test_a_seed_decides_everything(name: str, tmp_path: Path) -> None:
    images, first, second, other = tiny.normal(tmp_path), *(tiny.build(name, seed=s) for s in (3, 3, 4))
    assert tiny.equal(first, second) and not tiny.equal(first, other)
    rows = tiny.fit(first, images, seed=5).rows
    torch.rand(7)  # what else draws random numbers must not matter
    assert tiny.fit(second, images, seed=5).rows == rows
    assert tiny.equal(first, second)
    assert tiny.fit(tiny.build(name, seed=3, steps=1), images, seed=6).rows[0] != rows[0]


def test_killed_runs_end_like_whole_ones(name: str, tmp_path: Path) -> None:
    images, whole = tiny.normal(tmp_path / "images"), tiny.build(name)
    rows = tiny.fit(whole, images, seed=3).rows
    kept: dict[str, Any] = {"seed": 3, "state": tmp_path / "run", "save_every": 0}
    for at in sorted(random.Random(name).sample(range(1, len(rows)), 2)):
        with pytest.raises(tiny.KilledError):
            tiny.fit(tiny.build(name), images, on_step=tiny.killer(at), **kept)
    killed = tiny.build(name)
    assert tiny.fit(killed, images, **kept).rows == rows
    assert tiny.equal(killed, whole)


def test_saving_and_loading_keep_maps_to_the_bit(name: str, tmp_path: Path, batch: Batch) -> None:
    data = tiny.data(tmp_path / "data")
    model = tiny.build(name)
    tiny.fit(model, data.train)
    detector = kd.calibrate(model, data.calib, device="cpu", precision="fp32")
    loaded = kd.load(kd.save(detector, tmp_path / "saved"))
    assert (loaded.size, loaded.threshold, loaded.scale) == (detector.size, detector.threshold, detector.scale)
    x = batch.image.contiguous(memory_format=torch.channels_last)
    loaded.model.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert torch.equal(loaded.anomaly_map(x), detector.anomaly_map(x))


def pretend_on_cuda(module: nn.Module) -> None:
    """Replaces parameters and buffers, and nothing else, by fakes that claim to be on a GPU."""
    for part in module.modules():
        for key, p in part._parameters.items():
            if p is not None:
                fake = torch.empty(p.shape, dtype=p.dtype, device="cuda")
                part._parameters[key] = nn.Parameter(fake, p.requires_grad)
        for key, b in part._buffers.items():
            if b is not None:
                part._buffers[key] = torch.empty(b.shape, dtype=b.dtype, device="cuda")


def pretended(value: Any) -> Any:
    """A batch, or a part of one, as fakes on a GPU."""
    if isinstance(value, Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="cuda")
    if isinstance(value, Batch):
        return replace(value, **{f.name: pretended(getattr(value, f.name)) for f in fields(value)})
    return {name: pretended(view) for name, view in value.items()} if isinstance(value, dict) else value


def check_devices(model: Distiller, steps: list[tuple[Phase, Batch]]) -> None:
    with FakeTensorMode(allow_non_fake_inputs=False):
        pretend_on_cuda(model)
        model.train()
        outputs = [value for phase, batch in steps for value in phase.loss(pretended(batch)).values()]
        amap = model.eval().anomaly_map(torch.rand(2, 3, 64, 64, device="cuda"))
        outputs += [amap, model.image_score(amap)]
        stray = [tensor.device for tensor in outputs if tensor.device.type != "cuda"]
        assert not stray, f"results on {stray}"


def test_no_hard_wired_device(model: Distiller, steps: list[tuple[Phase, Batch]]) -> None:
    check_devices(model, steps)


def made_on_the_cpu(amap: Tensor) -> Tensor:
    return amap * torch.ones(1, 1, 64, 64)


def moved_to_the_cpu(amap: Tensor) -> Tensor:
    return amap.cpu()


MADE_BEFORE = torch.ones(1, 1, 64, 64)


def kept_outside(amap: Tensor) -> Tensor:
    return amap + MADE_BEFORE


@pytest.mark.parametrize("mistake", [made_on_the_cpu, moved_to_the_cpu, kept_outside])
def test_the_device_test_notices(mistake: object, images: TrainingImages, monkeypatch: pytest.MonkeyPatch) -> None:
    right = METHODS["stpm"].anomaly_map
    monkeypatch.setattr(METHODS["stpm"], "anomaly_map", lambda self, x: mistake(right(self, x)))  # type: ignore[operator]
    with pytest.raises((RuntimeError, AssertionError)):
        model = tiny.build("stpm")
        check_devices(model, list(first_batches(model, images)))


def test_presets_and_settings(name: str) -> None:
    assert preset(name) == preset(f"{name}/quick") and preset(f"{name}/mvtec")
    with pytest.raises(ValueError, match="unknown preset"):
        kd.build(f"{name}/nothing")
    with pytest.raises(ValueError, match=r"no setting \['no_such'\]"):
        kd.build(name, no_such=1)
    numbers = ({"batch_size": 0}, {"steps": 0}, {"blur": -1.0}, {"margin": 128.0})
    types = ({"lr": "fast"}, {"steps": "abc"}, {"strides": 4}, {"top_k": 2.5}, {"align_corners": "False"})
    for wrong in (*numbers, *types, {"fusion": "minimum"}, {"blur": float("nan")}):
        with pytest.raises(ValueError, match="expected"):
            kd.build(name, **wrong)
    assert configure(name, steps=np.int64(7)).steps == 7
    with pytest.raises(ValueError, match="unknown method 'teapot'"):
        kd.build("teapot")


def test_a_method_is_named_by_a_text() -> None:
    for wrong in (None, 3, b"rd", ["rd"]):
        with pytest.raises(ValueError, match=r"method is a \w+; expected a name such as 'rd' or 'rd/full'"):
            kd.build(wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown method ''; expected one of"):
        kd.build("")
