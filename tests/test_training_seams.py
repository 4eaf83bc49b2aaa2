"""What a phase may ask for: groups of parameters, views, auxiliary images, exemplars, a teacher that learns first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import tiny
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

import kdlib as kd
from kdlib import losses, teachers
from kdlib.config import DistillerConfig
from kdlib.contract import Batch, Distiller, Losses, Pairs, Phase, TrainingSet
from kdlib.training.state import from_json, to_json

pytestmark = pytest.mark.filterwarnings("ignore:.*RANDOM:UserWarning")
Schedule = Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]


@dataclass(frozen=True, kw_only=True)
class ToyConfig(DistillerConfig):
    steps: int | None = 6
    batch_size: int = 4


class Adapted(teachers.Teacher):
    """A frozen backbone and layers on top of it that a first phase trains."""

    def __init__(self, backbone: teachers.Teacher) -> None:
        super().__init__()
        self.name, self.strides, self.channels, self.weights = (
            backbone.name,
            backbone.strides,
            backbone.channels,
            backbone.weights,
        )
        self.backbone = backbone
        self.adapters = nn.ModuleList(nn.Sequential(nn.Conv2d(c, c, 1), nn.BatchNorm2d(c)) for c in backbone.channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        with torch.no_grad():
            features = self.backbone(x)
        return [adapter(f) for adapter, f in zip(self.adapters, features, strict=True)]

    def fingerprint(self) -> str:
        return self.backbone.fingerprint()


class Toy(Distiller):
    """A 1x1 student; phases are set from outside, what their losses saw is noted in `seen`."""

    name = "toy"
    config: ToyConfig
    setting: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: ToyConfig | None = None) -> None:
        super().__init__(config or ToyConfig())
        self.students = nn.ModuleList(nn.Conv2d(c, c, 1) for c in self.teacher.channels)
        self.seen: list[Batch] = []

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        t = self.teach(x, teacher)
        return [(f, student(f)) for f, student in zip(t, self.students, strict=True)]

    def loss(self, batch: Batch) -> Losses:
        self.seen.append(batch)
        return losses.over_levels(self.pairs(batch.image, batch.teacher), losses.per_position_cosine)

    def phases(self, images: TrainingSet) -> Iterator[Phase]:
        self.seen_held_out = [len(batch.image) for batch in images.held_out]
        settings: dict[str, Any] = {
            "name": "toy",
            "parameters": self.student_parameters(),
            "optimiser": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
            "loss": self.loss,
            "steps": self.steps(1),
            "batch_size": self.config.batch_size,
        }
        yield Phase(**settings | {name: made(self) for name, made in self.setting.items()})


class TaughtFirst(Toy):
    """The teacher's adapters learn in a first phase; then they stand still and are imitated."""

    name = "taught_first"
    frozen = ("teacher.backbone",)

    def __init__(self, config: ToyConfig | None = None) -> None:
        super().__init__(config)
        self.teacher = Adapted(self.teacher)

    def adapt(self, batch: Batch) -> Losses:
        assert batch.teacher is None and self.teacher.training and not self.teacher.backbone.training  # type: ignore[attr-defined]
        return {"total": torch.stack([f.square().mean() for f in self.teacher(batch.image)]).sum()}

    def loss(self, batch: Batch) -> Losses:
        assert not self.teacher.training
        if batch.teacher is not None:
            with torch.no_grad():
                torch.testing.assert_close(list(batch.teacher), self.teacher(batch.image), rtol=1e-4, atol=1e-4)
        return super().loss(batch)

    def phases(self, images: TrainingSet) -> Iterator[Phase]:
        list(images)  # statistics of the untrained teacher must not be kept
        sgd = {"optimiser": lambda p: torch.optim.SGD(p, lr=0.1), "steps": 4, "batch_size": 4}
        adapters = list(self.teacher.adapters.parameters())  # type: ignore[attr-defined]
        yield Phase(name="teacher", parameters=adapters, loss=self.adapt, teacher_fixed=False, **sgd)  # type: ignore[arg-type]
        yield Phase(name="student", parameters=list(self.students.parameters()), loss=self.loss, **sgd)  # type: ignore[arg-type]


def build(monkeypatch: pytest.MonkeyPatch, kind: type[Toy] = Toy, **setting: Callable[[Toy], Any]) -> Toy:
    monkeypatch.setattr(Toy, "setting", setting)
    torch.manual_seed(0)
    return kind()


@pytest.fixture
def images(tmp_path: Path) -> kd.data.ImageSet:
    return tiny.normal(tmp_path / "images", 7)


def two_rates(model: Toy) -> list[dict[str, Any]]:
    first, *others = model.students
    slow = [p for student in others for p in student.parameters()]
    return [{"params": list(first.parameters()), "lr": 0.01}, {"params": slow}]


def test_groups_keep_their_own_rates_through_a_kill(
    images: kd.data.ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fall = {"scheduler": lambda _: lambda o: lr_scheduler.MultiStepLR(o, [4], 0.1), "clip": lambda _: 0.05}
    setting = {"parameters": two_rates, **fall}
    whole = build(monkeypatch, **setting)
    tiny.fit(whole, images)
    with pytest.raises(tiny.KilledError):
        tiny.fit(build(monkeypatch, **setting), images, state=tmp_path, save_every=0, on_step=tiny.killer(3))
    optimisers: list[torch.optim.Optimizer] = []

    def noted(_: Toy) -> Callable[[Any], torch.optim.Optimizer]:
        return lambda p: optimisers.append(torch.optim.SGD(p, lr=0.1, momentum=0.9)) or optimisers[-1]  # type: ignore[func-returns-value]

    killed = build(monkeypatch, optimiser=noted, **setting)
    tiny.fit(killed, images, state=tmp_path)
    assert tiny.equal(killed, whole)
    assert [group["lr"] for group in optimisers[0].param_groups] == pytest.approx([0.001, 0.01])


def test_clipping_knows_groups(images: kd.data.ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(clip: float | None) -> Tensor:
        plain = {"optimiser": lambda _: lambda p: torch.optim.SGD(p, lr=1.0), "steps": lambda _: 1}
        model = build(
            monkeypatch, parameters=lambda m: [{"params": m.student_parameters()}], clip=lambda _: clip, **plain
        )
        before = torch.cat([p.detach().flatten().clone() for p in model.student_parameters()])
        tiny.fit(model, images)
        return torch.linalg.vector_norm(torch.cat([p.detach().flatten() for p in model.student_parameters()]) - before)

    assert float(step(1e-3)) == pytest.approx(1e-3, rel=0.01) and float(step(None)) > 2e-3


SCHEDULES: dict[str, Schedule] = {
    "milestones": lambda o: lr_scheduler.MultiStepLR(o, [3, 5], 0.1),
    "steps": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=6),
    "warm-up, then milestones": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=2), lr_scheduler.MultiStepLR(o, [2], 0.1)], [2]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 3), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 6, 2.0),
    "function": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
}


@pytest.mark.filterwarnings("ignore:.*epoch parameter.*:UserWarning")
@pytest.mark.parametrize("which", SCHEDULES)
def test_every_schedule_goes_on_after_a_kill(
    which: str, images: kd.data.ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []

    def noting(_: Toy) -> Callable[[Any], torch.optim.Optimizer]:
        class Noting(torch.optim.SGD):
            def step(self, closure: Any = None) -> Any:
                rates.append(float(self.param_groups[0]["lr"]))
                return super().step(closure)

        return lambda p: Noting(p, lr=0.1, momentum=0.9)

    setting = {"scheduler": lambda _: SCHEDULES[which], "optimiser": noting}
    whole = build(monkeypatch, **setting)
    tiny.fit(whole, images)
    expected, rates[:] = list(rates), []
    for at in (2, 5):
        with pytest.raises(tiny.KilledError):
            tiny.fit(build(monkeypatch, **setting), images, state=tmp_path, save_every=0, on_step=tiny.killer(at))
    killed = build(monkeypatch, **setting)
    tiny.fit(killed, images, state=tmp_path)
    assert tiny.equal(killed, whole)
    assert len(set(expected)) > 1 and rates[-1] == expected[-1]


def test_json_keeps_types() -> None:
    from collections import Counter

    value = {1: (2, 3.5, None), "a": [True, {"b": Counter({3: 1})}]}
    tensors = {"model.a": torch.ones(1)}
    again = from_json(to_json(value | {"moment": torch.ones(2)}, tensors), tensors)
    assert torch.equal(again.pop("moment"), torch.ones(2)) and len(tensors) == 2
    assert again == value and isinstance(again["a"][1]["b"], Counter) and isinstance(again[1], tuple)
    with pytest.raises(TypeError, match="cannot be kept"):
        to_json({"lr": object()}, {})


def noise(image: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    return {"noisy": image + torch.rand(image.shape, generator=generator)}


def test_a_view_has_one_seed_per_image_and_step(
    images: kd.data.ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawn(**options: Any) -> list[Tensor]:
        model = build(monkeypatch, view=lambda _: noise)
        tiny.fit(model, images.subset(range(4)), **options)
        assert all(batch.teacher is not None for batch in model.seen), "features of the clean image stay cached"
        return [batch.views["noisy"] - batch.image for batch in model.seen]

    first, again, workers = drawn(), drawn(), drawn(workers=1)
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(first, again, workers, strict=True))
    every = torch.cat(first).flatten(1)
    assert len(torch.unique(every[:, 0])) == len(every), "no two images and no two steps draw the same"
    other = drawn(seed=1)
    assert not torch.equal(first[0], other[0])


def test_auxiliary_images_and_exemplars_reach_the_batch(
    images: kd.data.ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    textures = tiny.normal(tmp_path / "textures", 3)
    model = build(monkeypatch, auxiliary=lambda _: 2, exemplars=lambda _: 3)
    tiny.fit(model, images, auxiliary=textures)
    batch = model.seen[0]
    assert batch.auxiliary is not None and batch.exemplars is not None
    assert batch.auxiliary.shape == (2, 3, 64, 64) and batch.exemplars.image.shape == (3, 3, 64, 64)
    assert batch.exemplars.teacher is not None and len(batch.exemplars.teacher) == 3
    known = [images[i]["image"] for i in range(7)]
    assert all(any(torch.equal(image, one) for one in known) for image in batch.exemplars.image)
    rendered = build(monkeypatch, auxiliary=lambda _: 2)
    tiny.fit(rendered, images)
    assert rendered.seen[0].auxiliary is not None and rendered.seen[0].auxiliary.shape == (2, 3, 64, 64)
    with pytest.raises(ValueError, match=r"auxiliary is .* expected some images of 64 x 64"):
        tiny.fit(build(monkeypatch), images, auxiliary=textures.subset([]))


def test_statistics_see_held_out_images(
    images: kd.data.ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(monkeypatch)
    tiny.fit(model, images)
    assert sum(model.seen_held_out) == 7
    tiny.fit(model, images, held_out=images.subset([0, 1]))
    assert sum(model.seen_held_out) == 2
    data = tiny.data(tmp_path / "data")
    with pytest.raises(ValueError, match="4 held-out images are anomalous"):
        tiny.fit(model, images, held_out=data.test)
    with pytest.raises(ValueError, match=r"held-out images are .* load both at one size"):
        tiny.fit(model, images, held_out=tiny.data(tmp_path / "large", size=96).train)


def test_a_teacher_may_learn_first_and_is_cached_after_it(
    images: kd.data.ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(monkeypatch, TaughtFirst)
    tiny.fit(whole, images)
    assert {name.split(".")[1] for name in whole.trained_tensors() if name.startswith("teacher.")} == {"adapters"}
    assert all(batch.teacher is not None for batch in whole.seen)
    for at in (2, 4, 6):
        with pytest.raises(tiny.KilledError):
            tiny.fit(build(monkeypatch, TaughtFirst), images, state=tmp_path, save_every=0, on_step=tiny.killer(at))
    killed = build(monkeypatch, TaughtFirst)
    tiny.fit(killed, images, state=tmp_path)
    assert tiny.equal(killed, whole)


@pytest.mark.parametrize("method", ["rd", "dnpkd"])  # the latter makes weights once it has seen the images
def test_a_callback_may_evaluate(method: str, images: kd.data.ImageSet, tmp_path: Path) -> None:
    data = tiny.data(tmp_path / "data")
    plain, watched = tiny.build(method), tiny.build(method)
    rows = tiny.fit(plain, images).rows

    def look(_: kd.History) -> None:
        kd.evaluate(watched, data.test, device="cpu", precision="fp32")

    assert tiny.fit(watched, images, on_step=look).rows == rows
    assert tiny.equal(plain, watched)


def test_what_is_frozen_is_not_taken_from_a_file() -> None:
    model = tiny.build("rd")
    before = model.teacher.fingerprint()
    stolen = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"missing or surplus, first 'teacher\."):
        model.load_trained(stolen)
    assert model.teacher.fingerprint() == before
