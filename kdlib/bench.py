"""How fast, against the loop that public code has: float32, teacher and student at every step, default layout."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from torch import Tensor

from kdlib import methods
from kdlib.methods.base import Distiller
from kdlib.runtime import Runtime, call_seconds, runtime
from kdlib.types import Batch


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What :func:`bench` measures; rates in images per second, medians.

    Attributes:
        method: The method.
        backbone: Its teacher.
        size: Height and width of the images in pixels.
        batch: Images per step.
        runtime: How kdlib ran.
        train: Steady training, teacher features from the cache where ``fit`` uses it on this device.
        train_plain: The plain float32 loop.
        train_ratio: Median of the ratios of neighbouring measurements.
        teacher: The single pass that fills the cache.
        score: Scoring, whole batches.
        score_plain: Scoring in float32, default layout.
        score_ratio: As above.
        latency_ms_p50: Scoring one image, milliseconds.
        peak_memory_mb: Of the process (CPU) or the device (CUDA) up to here.
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


def bench(
    name: str,
    *,
    size: int = 256,
    batch: int = 8,
    device: str = "auto",
    precision: str = "auto",
    rounds: int = 5,
    overrides: dict[str, Any] | None = None,
) -> Speed:
    """Measures training and scoring of a method on random images, ours and the plain loop in turn.

    Args:
        name: Method or ``method/preset``.
        size: Height and width in pixels.
        batch: Images per step.
        device: See :func:`kdlib.runtime.runtime`.
        precision: See :func:`kdlib.runtime.runtime`.
        rounds: Measurements of each kind.
        overrides: Fields of the method's configuration.

    Raises:
        ValueError: If the method is unknown or has nothing to train, or a number is not positive.
    """
    if name.partition("/")[0] in methods.BASELINES:
        raise ValueError(f"'{name}' has no training to measure; expected one of {sorted(methods.METHODS)}")
    if min(size, batch, rounds) < 1:
        raise ValueError(f"size is {size}, batch {batch}, rounds {rounds}; expected positive numbers")
    how = runtime(device, precision)
    plain = replace(how, precision="fp32", channels_last=False)
    image = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    ours, theirs = (methods.build(name, **{"batch_size": batch, **(overrides or {})}) for _ in range(2))
    how.prepare(ours)
    plain.prepare(theirs)
    x, y = how.images(image), plain.images(image)

    def teach() -> list[Tensor]:
        with torch.no_grad(), how.autocast():
            return ours.teacher(x)

    cached = teach() if how.device.type == "cpu" else None
    train = _in_turn(_trainer(ours, x, cached, how), _trainer(theirs, y, None, plain, fused=False), how, rounds)
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
        teacher=batch / statistics.median(call_seconds(teach, how.device)),
        score=batch / statistics.median(score[0]),
        score_plain=batch / statistics.median(score[1]),
        score_ratio=statistics.median(b / a for a, b in zip(*score, strict=True)),
        latency_ms_p50=latency_ms(ours, (size, size), how),
        peak_memory_mb=peak_memory_mb(how.device),
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
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _trainer(
    model: Distiller, x: Tensor, cached: list[Tensor] | None, how: Runtime, *, fused: bool = True
) -> Callable[[], None]:
    optimiser = model.optimiser(model.student_parameters())
    for group in optimiser.param_groups:
        group["fused"] = fused
    batch = Batch(image=x, category=torch.zeros(len(x), dtype=torch.long), teacher=cached)
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
