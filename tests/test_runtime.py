"""Where things run: choices, their errors, seeds and versions."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import nn

import kdlib as kd
from kdlib import runtime as module
from kdlib.randomness import seeded
from kdlib.runtime import Runtime, call_seconds, choose, prefer, versions
from kdlib.session import setup

CPU = torch.device("cpu")


def test_named_choices() -> None:
    assert choose("cpu", "fp32") == Runtime(device=CPU)
    assert str(choose("cpu", "bf16")) == "cpu, bf16"


@pytest.mark.parametrize(
    ("bf16", "amx", "expected"), [(True, False, "bf16"), (False, True, "bf16"), (False, False, "fp32")]
)
def test_the_processor_decides_precision(bf16: bool, amx: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(time, "perf_counter", None)  # no stopwatch has a say
    assert choose("cpu").precision == expected


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_that_only_emulates_bf16_trains_in_fp16(
    native: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    assert module._native(torch.device("cuda")) == expected


def test_a_seed_of_one_device_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("all GPUs were seeded"))
    with seeded(3):
        drawn = torch.rand(2)
    kd.build("stpm", weights="random")
    with seeded(3):
        assert torch.equal(torch.rand(2), drawn)


def test_a_preference_is_what_auto_means() -> None:
    try:
        prefer("cpu", "bf16")
        assert str(choose()) == "cpu, bf16" and choose(precision="fp32").precision == "fp32"
        with pytest.raises(ValueError, match="unknown precision"):
            prefer("cpu", "half")
    finally:
        prefer()
    assert choose("cpu").precision == module._native(CPU)


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown precision 'half'; expected auto, fp32"):
        choose("cpu", "half")
    with pytest.raises(ValueError, match="unknown device 'gpu'; expected auto, cpu"):
        choose("gpu")
    with pytest.raises(ValueError, match="cannot use device 'meta' here"):
        choose("meta")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"cannot use device 'cuda' here.*use 'auto'"):
            choose("cuda")


def test_prepare_and_images_agree_on_the_layout() -> None:
    runtime = Runtime(device=CPU)
    net = runtime.prepare(nn.Conv2d(3, 4, 3))
    assert next(net.parameters()).is_contiguous(memory_format=torch.channels_last)
    assert runtime.images(torch.rand(2, 3, 8, 8)).is_contiguous(memory_format=torch.channels_last)
    plain = Runtime(device=CPU, channels_last=False)
    assert plain.images(runtime.images(torch.rand(2, 3, 8, 8))).is_contiguous()


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast(precision: str, dtype: torch.dtype) -> None:
    runtime = choose("cpu", precision)
    with runtime.autocast():
        assert nn.Conv2d(3, 4, 3)(torch.rand(1, 3, 8, 8)).dtype == dtype


def test_setup_seeds_and_prints(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(module, "_preferred", {"device": "auto", "precision": "auto"})
    for _ in range(2):
        setup(5, device="cpu", precision="fp32")
        drawn.append((torch.rand(1).item(), np.random.rand()))  # noqa: NPY002 - what setup() seeds
    assert drawn[0] == drawn[1]
    said = capsys.readouterr().out
    assert "torch " in said and "runs on: cpu, fp32" in said and "(package)" in said


def test_versions_name_what_results_depend_on() -> None:
    assert {"python", "kdlib", "torch", "timm", "numpy"} <= versions().keys()
    assert versions()["torch"].startswith(torch.__version__.split("+")[0])


def test_call_seconds_leaves_the_warm_up_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 30.0, 40.0, 41.0, 50.0, 52.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    assert call_seconds(lambda: None, CPU, warmup=1, repeats=2) == [1.0, 2.0]
