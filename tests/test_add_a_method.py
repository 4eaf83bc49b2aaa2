"""Adding a method, as CONTRIBUTING says: one file, its name in the registry. The contract test then runs over it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import test_contract
import tiny
import torch

import kdlib as kd
from kdlib import methods
from kdlib.cli import app, expand
from kdlib.runtime import Runtime
from kdlib.training.loader import TrainingImages, first_batches

TOY = '''"""Toy: one 1x1 convolution per level says what the teacher says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from kdlib import losses
from kdlib.config import DistillerConfig
from kdlib.contract import Distiller


@dataclass(frozen=True, kw_only=True)
class ToyConfig(DistillerConfig):
    """Attributes: lr: SGD learning rate."""

    lr: float = 0.5


class Toy(Distiller):
    name = "toy"

    def __init__(self, config=None):
        super().__init__(config or ToyConfig())
        self.students = nn.ModuleList(nn.Conv2d(c, c, 1) for c in self.teacher.channels)

    def pairs(self, x, teacher=None):
        t = self.teach(x, teacher)
        return [(f, student(f)) for f, student in zip(t, self.students, strict=True)]

    def loss(self, batch):
        return losses.over_levels(self.pairs(batch.image, batch.teacher), losses.per_position_cosine)

    def optimiser(self, parameters):
        return torch.optim.SGD(parameters, lr=self.config.lr)


PRESETS = {"mvtec": ToyConfig(), "quick": ToyConfig(steps=20)}
'''


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a method that is one more file among the others, and registered."""
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "toy.py").write_text(TOY)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path / "methods")])
    for table in ("METHODS", "_PRESETS"):
        monkeypatch.setattr(methods, table, dict(getattr(methods, table)))
    methods.register(import_module("kdlib.methods.toy"))
    yield "toy"
    del sys.modules["kdlib.methods.toy"]


def contract_tests() -> dict[str, Callable[..., None]]:
    """Every test of the contract that is about one method, but those that train: the command line does below."""
    found = {}
    for name, check in vars(test_contract).items():
        wanted = inspect.signature(check).parameters.keys() if name.startswith("test_") else set()
        if {"name", "model", "steps"} & wanted and "tmp_path" not in wanted:
            found[name] = check
    return found


def test_the_contract_test_runs_over_it(toy: str, tmp_path: Path) -> None:
    checks = contract_tests()
    assert len(checks) > 8
    three, cpu = tiny.normal(tmp_path, 3), Runtime(device=torch.device("cpu"))
    for test, check in checks.items():
        torch.manual_seed(0)
        model = tiny.build(toy)
        steps = list(first_batches(model, TrainingImages(model.teacher, three, 3, cpu, cache=False)))
        given: dict[str, Any] = {"name": toy, "model": model, "steps": steps, "batch": steps[-1][1]}
        wanted = inspect.signature(check).parameters
        assert wanted.keys() <= given.keys(), test
        check(**{name: given[name] for name in wanted})


def test_the_command_line_trains_it(toy: str, tmp_path: Path) -> None:
    tiny.data(tmp_path / "data")
    options = ["--size", "64", "--steps", "2", "--device", "cpu", "--precision", "fp32", "--maps", "plain"]
    arguments = ["run", toy, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), *options]
    with pytest.raises(SystemExit) as ended:
        app(expand(arguments))
    assert ended.value.code == 0
    assert "toy," in (tmp_path / "out" / "metrics.csv").read_text()
    assert kd.load(next((tmp_path / "out" / "models").iterdir())).model.name == "toy"
