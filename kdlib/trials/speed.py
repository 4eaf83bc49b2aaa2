"""How fast, against the loop that public code has: float32, teacher and student at every step, default layout."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kdlib import methods
from kdlib.contract import Batch, Distiller
from kdlib.runtime import Runtime, call_seconds, choose

_CATEGORIES = ("a", "b", "c", "d", "e")


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What `bench` measures; rates in images per second, medians.

    Attributes:
        method: The method.
        backbone: Its teacher.
        size: Height and width of the images in pixels.
        batch: Images per step.
        runtime: How kdlib ran.
        train: Steady training, teacher features from the cache where `fit` uses it on this device.
        train_plain: The plain float32 loop.
        train_ratio: Median of the ratios of neighbouring measurements.
        teacher: The single pass that fills the cache.
        score: Scoring, whole batches.
        score_plain: Scoring in float32, default layout.
        score_ratio: As above.
        latency_ms_p50: Scoring one image, milliseconds.
        peak_memory_mb: Of the process (CPU) or the device (CUDA) up to here.
        against: Another method, or nothing.
        step_ratio: How long a training step takes, in steps of that method; median of neighbouring measurements.
    """

    method: str
    backbone: str
    size: int
    batch: int
    runtime: str
    train: float
    train_plain: float
    train_ratio: float
    teacher: float
    score: float
    score_plain: float
    score_ratio: float
    latency_ms_p50: float
    peak_memory_mb: float
    against: str = ""
    step_ratio: float | None = None


def bench(
    name: str,
    *,
    size: int = 256,
    batch: int = 8,
    device: str = "auto",
    precision: str = "auto",
    rounds: int = 5,
    overrides: dict[str, Any] | None = None,
    against: str = "",
) -> Speed:
    """Measures training and scoring of a method on random images of five categories, ours and the plain loop in turn.

    Args:
        name: Method or `method/preset`.
        size: Height and width in pixels.
        batch: Images per step.
        device: See `kdlib.runtime.runtime`.
        precision: See `kdlib.runtime.runtime`.
        rounds: Measurements of each kind.
        overrides: Fields of the methods' configurations.
        against: Method or `method/preset` whose training steps are measured in turn with the method's.

    Raises:
        ValueError: If a method is unknown or has nothing to train, or a number is not positive.
    """
    for method in filter(None, (name, against)):
        if method.partition("/")[0] in methods.BASELINES:
            raise ValueError(f"'{method}' has no training to measure; expected one of {sorted(methods.METHODS)}")
    if min(size, batch, rounds) < 1:
        raise ValueError(f"size is {size}, batch {batch}, rounds {rounds}; expected positive numbers")
    how = choose(device, precision)
    plain = replace(how, precision="fp32", channels_last=False)
    image = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    options = {"batch_size": batch, **(overrides or {})}
    ours, theirs = (_ready(methods.build(name, **options), image, runs) for runs in (how, plain))
    x, y = how.images(image), plain.images(image)
    step = _trainer(ours, x, how)
    train = _in_turn(step, _trainer(theirs, y, plain, as_published=True), how, rounds)
    ratio = None
    if against:
        other = _trainer(_ready(methods.build(against, **options), image, how), x, how)
        ratio = statistics.median(a / b for a, b in zip(*_in_turn(step, other, how, 4 * rounds), strict=True))
    ours.eval(), theirs.eval()
    score = _in_turn(_scorer(ours, x, how), _scorer(theirs, y, plain), how, rounds)
    return Speed(
        method=name,
        backbone=ours.teacher.name,
        size=size,
        batch=batch,
        runtime=str(how),
        train=batch / statistics.median(train[0]),
        train_plain=batch / statistics.median(train[1]),
        train_ratio=statistics.median(b / a for a, b in zip(*train, strict=True)),
        teacher=batch / statistics.median(call_seconds(partial(_taught, ours, x, how), how.device)),
        score=batch / statistics.median(score[0]),
        score_plain=batch / statistics.median(score[1]),
        score_ratio=statistics.median(b / a for a, b in zip(*score, strict=True)),
        latency_ms_p50=latency_ms(ours, (size, size), how),
        peak_memory_mb=peak_memory_mb(how.device),
        against=against,
        step_ratio=ratio,
    )


def latency_ms(model: Distiller, size: tuple[int, int], how: Runtime) -> float:
    """Median milliseconds to score one image of this height and width, after a warm-up."""
    x = how.images(torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)))
    return 1000 * statistics.median(call_seconds(_scorer(model.eval(), x, how), how.device, repeats=20))


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held so far: on a CUDA device there, else resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@dataclass
class _OneBatch:
    """All there is to train on, for methods that look at the training images before they start."""

    batch: Batch
    categories: tuple[str, ...] = _CATEGORIES

    def __len__(self) -> int:
        return len(self.batch.image)

    def __iter__(self) -> Iterator[Batch]:
        yield self.batch


def _ready(model: Distiller, image: Tensor, how: Runtime) -> Distiller:
    """The method as it is when its training starts."""
    how.prepare(model)
    with how.autocast():
        next(model.phases(_OneBatch(_batch(how.images(image)))))
    return model


def _batch(x: Tensor, teacher: list[Tensor] | None = None) -> Batch:
    return Batch(image=x, category=torch.arange(len(x), device=x.device) % len(_CATEGORIES), teacher=teacher)


def _taught(model: Distiller, x: Tensor, how: Runtime) -> list[Tensor]:
    with torch.no_grad(), how.autocast():
        return model.teacher(x)


def _trainer(model: Distiller, x: Tensor, how: Runtime, *, as_published: bool = False) -> Callable[[], None]:
    """One training step; as published, the teacher runs in it and the optimiser is PyTorch's default."""
    optimiser = model.optimiser(model.student_parameters())
    for group in optimiser.param_groups:
        group["fused"] = not as_published
    cached = None if as_published or how.device.type != "cpu" else _taught(model, x, how)
    batch = _batch(x, cached)
    model.train()

    def step() -> None:
        with how.autocast():
            total = model.loss(batch)["total"]
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        optimiser.step()

    return step


def _scorer(model: Distiller, x: Tensor, how: Runtime) -> Callable[[], None]:
    def score() -> None:
        with torch.inference_mode(), how.autocast():
            model.image_score(model.anomaly_map(x).float())

    return score


def _in_turn(
    ours: Callable[[], None], plain: Callable[[], None], how: Runtime, rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of both, measured A B A B, so that a machine whose speed drifts does not favour one."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        for work, kept in zip((ours, plain), times, strict=True):
            kept += call_seconds(work, how.device, warmup=0, repeats=1)
    return times[0][1:], times[1][1:]
