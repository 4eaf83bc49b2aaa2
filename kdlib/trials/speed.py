"""How fast, against the loop that public code has: float32, teacher and student at every step, default layout."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kdlib import methods
from kdlib.contract import Distiller
from kdlib.runtime import Runtime, call_seconds, choose
from kdlib.trials.steps import RandomImages, Step, training_steps
from kdlib.trials.trial import Recipe


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What `bench` measures; rates in images per second, medians.

    Attributes:
        method: The method.
        backbone: Its teacher.
        size: Height and width of the images in pixels.
        batch: Images per step.
        runtime: How kdlib ran.
        train: Steady training, over all phases in the proportion of their steps; teacher features from the cache where
            `fit` uses it on this device.
        train_plain: The plain float32 loop.
        train_ratio: Median of the ratios of neighbouring measurements.
        teacher: The single pass that fills the cache.
        score: Scoring, whole batches.
        score_plain: Scoring in float32, default layout.
        score_ratio: As above.
        latency_ms_p50: Scoring one image, milliseconds.
        peak_memory_mb: Of the process (CPU) or the device (CUDA) up to here.
        against: Another method, or nothing.
        step_ratio: How long a training step takes, over all phases, in steps of that method; median of neighbouring
            measurements.
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
        device: See `kdlib.runtime`.
        precision: See `kdlib.runtime`.
        rounds: Measurements of each kind.
        overrides: Fields of the methods' configurations.
        against: Method or `method/preset` whose training steps are measured in turn with the method's.

    Raises:
        ValueError: If a method is unknown or has nothing to train, an option does not fit, or a number is not positive.
    """
    if min(size, batch, rounds) < 1:
        raise ValueError(f"size is {size}, batch {batch}, rounds {rounds}; expected positive numbers")
    options = {"batch_size": batch, **(overrides or {})}
    recipe, other_recipe = _recipe(name, options), _recipe(against or name, options)
    runtime = choose(device, precision)
    plain_runtime = replace(runtime, precision="fp32", channels_last=False)
    images = RandomImages(batch, size)
    image = torch.stack([images[i]["image"] for i in range(batch)])
    model, plain = _build(recipe, runtime), _build(recipe, plain_runtime)
    steps = training_steps(model, images, runtime)
    train = _in_turn(steps, training_steps(plain, images, plain_runtime, as_published=True), runtime, rounds)
    step_ratio = None
    if against:
        other_steps = training_steps(_build(other_recipe, runtime), images, runtime)
        step_ratio = _ratio(*_in_turn(steps, other_steps, runtime, 4 * rounds))
    score = _in_turn([_scoring(model, image, runtime)], [_scoring(plain, image, plain_runtime)], runtime, rounds)
    teacher = partial(_teacher_features, model, runtime.images(image), runtime)
    return Speed(
        method=name,
        backbone=model.teacher.name,
        size=size,
        batch=batch,
        runtime=str(runtime),
        train=batch / statistics.median(train[0]),
        train_plain=batch / statistics.median(train[1]),
        train_ratio=_ratio(train[1], train[0]),
        teacher=batch / statistics.median(call_seconds(teacher, runtime.device)),
        score=batch / statistics.median(score[0]),
        score_plain=batch / statistics.median(score[1]),
        score_ratio=_ratio(score[1], score[0]),
        latency_ms_p50=latency_ms(model, (size, size), runtime),
        peak_memory_mb=peak_memory_mb(runtime.device),
        against=against,
        step_ratio=step_ratio,
    )


def latency_ms(model: Distiller, size: tuple[int, int], runtime: Runtime) -> float:
    """Median milliseconds to score one image of this height and width, after a warm-up."""
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    scoring = _scoring(model, image, runtime)
    return 1000 * statistics.median(call_seconds(scoring.take, runtime.device, repeats=20))


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held so far: on a CUDA device there, else resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _recipe(name: str, options: dict[str, Any]) -> Recipe:
    recipe = Recipe(method=name, options=options)
    recipe.config()
    if name.partition("/")[0] in methods.BASELINES:
        raise ValueError(f"'{name}' has no training to measure; expected one of {sorted(methods.METHODS)}")
    return recipe


def _build(recipe: Recipe, runtime: Runtime) -> Distiller:
    model = methods.build(recipe.method, **recipe.options)
    runtime.prepare(model)
    return model


def _teacher_features(model: Distiller, x: Tensor, runtime: Runtime) -> list[Tensor]:
    with torch.no_grad(), runtime.autocast():
        return list(model.teacher(x))


def _scoring(model: Distiller, image: Tensor, runtime: Runtime) -> Step:
    """Scoring images [B, 3, H, W]; leaves the model in eval mode."""
    x = runtime.images(image)
    model.eval()

    def score() -> None:
        with torch.inference_mode(), runtime.autocast():
            model.image_score(model.anomaly_map(x).float())

    return Step(score)


def _in_turn(
    one: Sequence[Step], other: Sequence[Step], runtime: Runtime, rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of both, measured A B A B, so that a machine whose speed drifts does not favour one."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 1):
        times[0].append(_seconds(one, runtime))
        times[1].append(_seconds(other, runtime))
    return times[0][1:], times[1][1:]


def _seconds(steps: Sequence[Step], runtime: Runtime) -> float:
    """Seconds of the mean step."""
    return sum(step.share * call_seconds(step.take, runtime.device, warmup=0, repeats=1)[0] for step in steps)


def _ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Median of the ratios of neighbouring measurements."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))
