"""Where and how things run: device, precision, memory layout, seeds, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn

from kdlib.allocation import keep_freed_memory

Precision = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_preferred = {"device": "auto", "precision": "auto"}
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
        return module.to(self.device, memory_format=self._layout)  # type: ignore[call-overload]

    def images(self, x: Tensor) -> Tensor:
        """Moves images [B, 3, H, W] to the device, in the chosen layout."""
        return x.to(self.device, memory_format=self._layout, non_blocking=True)

    @property
    def _layout(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """Runs convolutions in the chosen precision."""
        with torch.autocast(self.device.type, DTYPES[self.precision], enabled=self.precision != "fp32"):
            yield

    def __str__(self) -> str:
        return f"{self.device}, {self.precision}"


def choose(device: str = "auto", precision: str = "auto") -> Runtime:
    """Chooses how to run on this machine. On a processor, freed memory is kept from then on (`kdlib.allocation`).

    Args:
        device: `auto` (what `prefer` named, else CUDA, then Apple's MPS, then the CPU) or a torch device.
        precision: `fp32`, `bf16`, `fp16`, or `auto`: what `prefer` named, else half precision where the processor
            computes in it: GPUs do, CPUs only with AVX512-BF16 or AMX. No stopwatch decides, so that a machine always
            gives the same answer.

    Raises:
        ValueError: If the device or precision is not known or not there.
    """
    if precision not in ("auto", "fp32", "bf16", "fp16"):
        raise ValueError(f"unknown precision '{precision}'; expected auto, fp32, bf16 or fp16")
    where = _device(_preferred["device"] if device == "auto" else device)
    if where.type == "cpu":
        keep_freed_memory()
    chosen = _preferred["precision"] if precision == "auto" else precision
    return Runtime(device=where, precision=_native(where) if chosen == "auto" else chosen)  # type: ignore[arg-type]


def prefer(device: str = "auto", precision: str = "auto") -> Runtime:
    """What `auto` means from now on in this process; returns that choice.

    Raises:
        ValueError: If the device or precision is not known or not there.
    """
    _preferred.update(device="auto", precision="auto")
    chosen = choose(device, precision)
    _preferred.update(device=device, precision=precision)
    return chosen


def processes() -> PartialState:
    """The processes that share this run, started by `torchrun` or `accelerate launch`; usually one.

    Accelerate takes processes without a GPU for separate runs unless it is told that the CPU is meant.
    """
    gpus = torch.cuda.is_available() or torch.backends.mps.is_available()
    cpu = not gpus or os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    return PartialState(cpu=cpu, timeout=timedelta(days=7))  # the others wait while the first one evaluates


def local_processes(state: PartialState) -> int:
    """How many of the run's processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes))


def agreed(runtime: Runtime) -> Runtime:
    """The first process's choice, on each process's own device: machines of one run may differ."""
    choice: list[Any] = [runtime.precision, runtime.channels_last]
    broadcast_object_list(choice)
    return replace(runtime, precision=choice[0], channels_last=choice[1])


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in _PACKAGES}


def call_seconds(work: Callable[[], object], device: torch.device, *, warmup: int = 2, repeats: int = 5) -> list[float]:
    """Wall times of repeated calls in seconds, after a warm-up, each waiting for the device to finish."""
    times = []
    for _ in range(warmup + repeats):
        start = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return times[warmup:]


def exact(x: Tensor) -> Tensor:
    """In float64, on the processor where the device has no such numbers, as Apple's."""
    return x.cpu().double() if x.device.type == "mps" else x.double()


def synchronise(device: torch.device) -> None:
    """Waits until an accelerator has done what it was asked."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


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


def _native(device: torch.device) -> Precision:
    """The shortest floating-point type that a device multiplies at full speed, and trains in."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    half = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return "bf16" if half else "fp32"
