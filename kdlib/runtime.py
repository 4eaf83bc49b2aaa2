"""Where and how things run: device, precision, memory layout, seeds, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

Precision = Literal["fp32", "bf16", "fp16"]
_PACKAGES = ("kdlib", "torch", "torchvision", "timm", "numpy", "scikit-learn")


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """How to run a network.

    Attributes:
        device: Where.
        precision: Type of the convolutions; losses, maps and metrics are always float32.
        channels_last: Memory layout of images and weights; depthwise convolutions on CPUs gain most.
    """

    device: torch.device
    precision: Precision = "fp32"
    channels_last: bool = True

    def prepare(self, module: nn.Module) -> nn.Module:
        """Moves a module to the device, in the chosen layout. Changes the module itself."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return module.to(self.device, memory_format=layout)  # type: ignore[call-overload]

    def images(self, x: Tensor) -> Tensor:
        """Moves images [B, 3, H, W] to the device, in the chosen layout."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return x.to(self.device, memory_format=layout, non_blocking=True)

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Runs convolutions in the chosen precision."""
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            yield

    def __str__(self) -> str:
        return f"{self.device}, {self.precision}"


def runtime(device: str = "auto", precision: str = "auto") -> Runtime:
    """Chooses how to run on this machine.

    Args:
        device: `auto` (CUDA, then Apple's MPS, then the CPU) or a torch device.
        precision: `fp32`, `bf16`, `fp16`, or `auto`: half precision where this machine is measured, once per
            process, to train a small network at least 1.2 times faster with it.

    Raises:
        ValueError: If the device or precision is not known or not there.
    """
    if precision not in ("auto", "fp32", "bf16", "fp16"):
        raise ValueError(f"unknown precision '{precision}'; expected auto, fp32, bf16 or fp16")
    where = _device(device)
    if precision == "auto":
        return _fastest(where)
    return Runtime(device=where, precision=precision)  # type: ignore[arg-type]


def processes() -> PartialState:
    """The processes that share this run, started by `torchrun` or `accelerate launch`; usually one.

    Accelerate takes processes without a GPU for separate runs unless it is told that the CPU is meant.
    """
    gpus = torch.cuda.is_available() or torch.backends.mps.is_available()
    return PartialState(cpu=not gpus or os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true")


def agreed(how: Runtime) -> Runtime:
    """The first process's choice, which was measured: all processes run alike."""
    choice: list[Any] = [how.precision, how.channels_last]
    broadcast_object_list(choice)
    return Runtime(device=how.device, precision=choice[0], channels_last=choice[1])


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def call_seconds(work: Callable[[], object], device: torch.device, *, warmup: int = 2, repeats: int = 5) -> list[float]:
    """Wall times of repeated calls in seconds, after a warm-up, each waiting for the device to finish."""
    times = []
    for _ in range(warmup + repeats):
        start = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return times[warmup:]


def synchronise(device: torch.device) -> None:
    """Waits until an accelerator has done what it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device '{name}'; expected auto, cpu, cuda, cuda:1, mps, ...") from error
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"torch {torch.__version__} cannot use device '{name}' here ({reason}); use 'auto'") from error
    return device


_measured: dict[torch.device, Runtime] = {}


def _fastest(device: torch.device) -> Runtime:
    if device not in _measured:
        plain = Runtime(device=device)
        half = Runtime(device=device, precision=_half(device))
        with torch.random.fork_rng():
            probes = [_probe(how) for how in (plain, half)]
        # in turn, and the best of each: other work on the machine must not decide
        times = [[call_seconds(probe, device, warmup=0, repeats=1)[0] for probe in probes] for _ in range(8)]
        slow, fast = (min(column) for column in zip(*times, strict=True))
        _measured[device] = half if fast * 1.2 < slow else plain
    return _measured[device]


def _half(device: torch.device) -> Precision:
    return "fp16" if device.type == "cuda" and not torch.cuda.is_bf16_supported() else "bf16"


def _probe(how: Runtime) -> Callable[[], None]:
    """One training step of a small convolutional network."""
    layers = [m for _ in range(3) for m in (nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())]
    net, x = how.prepare(nn.Sequential(*layers)), how.images(torch.rand(4, 64, 64, 64))

    def step() -> None:
        with how.autocast():
            net(x).float().mean().backward()

    return step
