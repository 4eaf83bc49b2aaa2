"""How fast, against the loop that public code has: float32, teacher and student at every step, default layout."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kdlib import methods
from kdlib.contract import Batch, Distiller, Phase
from kdlib.data import ImageSet, Sample
from kdlib.runtime import Runtime, call_seconds, choose
from kdlib.training.loader import TrainingImages, first_batches

CATEGORIES = ("a", "b", "c", "d", "e")


class Step(NamedTuple):
    """Work that can be repeated, and its share of the steps of the whole training."""

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
) -> dict[str, Any]:
    """Measures training and scoring of a method on random images of five categories, ours and the plain loop in turn.

    Rates are medians of some rounds, in images per second; ratios are medians of those of neighbouring measurements.
    Where it is measured `against` another method, `step_ratio` is a training step in steps of that method.

    Raises:
        ValueError: If a method is unknown or has nothing to train, an option does not fit, or a number is not positive.
    """
    if min(size, batch, rounds) < 1:
        raise ValueError(f"size is {size}, batch {batch}, rounds {rounds}; expected positive numbers")
    name, against = methods.own_name(name), methods.own_name(against)
    options = {"batch_size": batch, **(overrides or {})}
    for method in (name, against or name):
        methods.configure(method, **options)
        if method.partition("/")[0] in methods.BASELINES:
            raise ValueError(f"'{method}' has no training to measure; expected one of {sorted(methods.METHODS)}")
    runtime = choose(device, precision)
    plain_runtime = replace(runtime, precision="fp32", channels_last=False)
    images = RandomImages(batch, size)
    image = torch.stack([images.pixels(i) for i in range(batch)]) / 255
    model, plain = methods.build(name, **options), methods.build(name, **options)
    steps = training_steps(model, images, runtime)
    train = _in_turn(steps, training_steps(plain, images, plain_runtime, as_published=True), runtime, rounds)
    step_ratio = None
    if against:
        others = training_steps(methods.build(against, **options), images, runtime)
        step_ratio = _ratio(*_in_turn(steps, others, runtime, 4 * rounds))
    score = _in_turn([_scoring(model, image, runtime)], [_scoring(plain, image, plain_runtime)], runtime, rounds)
    x = runtime.images(image)

    def teacher() -> None:
        with torch.no_grad(), runtime.autocast():
            model.teacher(x)

    return {
        "method": name,
        "backbone": model.teacher.name,
        "size": size,
        "batch": batch,
        "runtime": str(runtime),
        "train": batch / statistics.median(train[0]),  # over all phases, in the proportion of their steps
        "train_plain": batch / statistics.median(train[1]),
        "train_ratio": _ratio(train[1], train[0]),
        "teacher": batch / statistics.median(call_seconds(teacher, runtime.device)),  # the pass that fills the cache
        "score": batch / statistics.median(score[0]),
        "score_plain": batch / statistics.median(score[1]),
        "score_ratio": _ratio(score[1], score[0]),
        "latency_ms_p50": latency_ms(model, (size, size), runtime),
        "peak_memory_mb": peak_memory_mb(runtime.device),
        "against": against,
        "step_ratio": step_ratio,
    }


def training_steps(model: Distiller, images: ImageSet, runtime: Runtime, *, as_published: bool = False) -> list[Step]:
    """A step of each phase, with all images in one batch.

    As published code does, the teacher runs in every step and the optimiser is PyTorch's default; else as in `fit`.
    """
    runtime.prepare(model)
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


def latency_ms(model: Distiller, size: tuple[int, int], runtime: Runtime) -> float:
    """Median milliseconds to score one image of this height and width, after a warm-up."""
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    scoring = _scoring(model, image, runtime)
    return 1000 * statistics.median(call_seconds(scoring.take, runtime.device, repeats=20))


def forget_peak(device: torch.device) -> None:
    """Lets `peak_memory_mb` begin anew, where the system can: on CUDA devices, and on Linux."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_mb(device: torch.device) -> float:
    """Most memory held since `forget_peak`: on a CUDA device there, else resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _scoring(model: Distiller, image: Tensor, runtime: Runtime) -> Step:
    """Scoring images [B, 3, H, W]; leaves the model in eval mode."""
    x = runtime.images(image)
    model.eval()

    def score() -> None:
        with torch.inference_mode(), runtime.autocast():
            model.image_score(model.anomaly_map(x).float())

    return Step(score)


def _in_turn(one: Sequence[Step], other: Sequence[Step], runtime: Runtime, rounds: int) -> list[list[float]]:
    """Seconds of the mean step of both, measured A B A B: a machine whose speed drifts does not favour one."""
    times: list[list[float]] = [[], []]
    for _ in range(rounds + 1):
        for measured, steps in zip(times, (one, other), strict=True):
            seconds = [call_seconds(step.take, runtime.device, warmup=0, repeats=1)[0] for step in steps]
            measured.append(sum(step.share * taken for step, taken in zip(steps, seconds, strict=True)))
    return [measured[1:] for measured in times]


def _ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Median of the ratios of neighbouring measurements."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))
