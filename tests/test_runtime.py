"""Where things run: choices, their errors, seeds and versions."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from torch import nn

from kdlib import runtime as module
from kdlib.runtime import Runtime, call_seconds, runtime, setup, versions

CPU = torch.device("cpu")


def test_named_choices() -> None:
    assert runtime("cpu", "fp32") == Runtime(device=CPU)
    assert str(runtime("cpu", "bf16")) == "cpu, bf16"


def test_auto_measures_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_measured", {})
    chosen = runtime("cpu", "auto")
    assert chosen.precision in ("fp32", "bf16") and list(module._measured) == [CPU]
    monkeypatch.setattr(module, "_probe", None)  # a second measurement would call it
    assert runtime("cpu") is chosen


@pytest.mark.parametrize(("half", "expected"), [(0.8, "bf16"), (0.9, "fp32"), (1.5, "fp32")])
def test_auto_takes_half_precision_where_it_pays(half: float, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_measured", {})
    monkeypatch.setattr(module, "_probe", lambda how: how.precision)
    monkeypatch.setattr(module, "call_seconds", lambda probe, *a, **k: [1.0 if probe == "fp32" else half])
    assert runtime("cpu").precision == expected


def test_measuring_leaves_the_generator_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    monkeypatch.setattr(module, "_measured", {})
    runtime("cpu")
    assert torch.equal(torch.rand(2), expected)


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown precision 'half'; expected auto, fp32"):
        runtime("cpu", "half")
    with pytest.raises(ValueError, match="unknown device 'gpu'; expected auto, cpu"):
        runtime("gpu")
    with pytest.raises(ValueError, match="cannot use device 'meta' here"):
        runtime("meta")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"cannot use device 'cuda' here.*use 'auto'"):
            runtime("cuda")


def test_prepare_and_images_agree_on_the_layout() -> None:
    how = Runtime(device=CPU)
    net = how.prepare(nn.Conv2d(3, 4, 3))
    assert next(net.parameters()).is_contiguous(memory_format=torch.channels_last)
    assert how.images(torch.rand(2, 3, 8, 8)).is_contiguous(memory_format=torch.channels_last)
    plain = Runtime(device=CPU, channels_last=False)
    assert plain.images(how.images(torch.rand(2, 3, 8, 8))).is_contiguous()


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast(precision: str, dtype: torch.dtype) -> None:
    how = runtime("cpu", precision)
    with how.autocast():
        assert nn.Conv2d(3, 4, 3)(torch.rand(1, 3, 8, 8)).dtype == dtype


def test_setup_seeds_and_prints(capsys: pytest.CaptureFixture[str]) -> None:
    drawn = []
    for _ in range(2):
        setup(5, device="cpu", precision="fp32")
        drawn.append((torch.rand(1).item(), np.random.rand()))  # noqa: NPY002 - what setup() seeds
    assert drawn[0] == drawn[1]
    said = capsys.readouterr().out
    assert "torch " in said and "runs on: cpu, fp32" in said and "(package)" in said


def test_versions_name_what_results_depend_on() -> None:
    assert {"python", "kdlib", "torch", "timm", "numpy"} <= versions().keys()
    assert versions()["torch"].startswith(torch.__version__.split("+")[0])


def test_call_seconds_leaves_the_warm_up_out() -> None:
    waits = iter([0.3, 0.001, 0.001])
    times = call_seconds(lambda: time.sleep(next(waits)), CPU, warmup=1, repeats=2)
    assert len(times) == 2 and max(times) < 0.25
