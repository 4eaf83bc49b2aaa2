"""The checkers of notebook 11: a right answer, typical wrong ones, and none."""

from __future__ import annotations

from math import log
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlib.course import checks
from kdlib.course.checks.memory import recalled
from kdlib.layers.recall import NormalityMemory


def cosines(x: Any, keys: Any) -> Any:
    return torch.einsum("lc,bchw->blhw", F.normalize(keys, dim=1), F.normalize(x, dim=1))


def mixed(shares: Any, values: Any) -> Any:
    return torch.einsum("blhw,lc->bchw", shares, values)


def few(x: Any, keys: Any, values: Any, best: int) -> Any:
    """The right answer."""
    top = cosines(x, keys).topk(best, dim=1)
    return mixed(torch.zeros_like(cosines(x, keys)).scatter(1, top.indices, top.values.softmax(1)), values)


def unscaled(x: Any, keys: Any, values: Any, best: int) -> Any:
    shares = cosines(x, keys).softmax(1)
    return mixed(shares * (shares >= shares.topk(best, dim=1).values[:, -1:]), values)


BEST: dict[str, Any] = {
    "right": few,
    "all slots still speak": lambda x, keys, values, best: recalled(x, keys, values),
    "no longer sum to 1": unscaled,
    "single best slot": lambda x, keys, values, best: few(x, keys, values, 1),
    "no gradient": lambda x, keys, values, best: few(x, keys.detach(), values, best),
    "expected a tensor": lambda x, keys, values, best: 3.0,
    "values differ": lambda x, keys, values, best: x,
    "not answered": lambda x, keys, values, best: None,
}


@pytest.mark.parametrize("said", BEST)
def test_best_slots(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    checks.best_slots(BEST[said])
    assert said in capsys.readouterr().out


class Forgetful(nn.Module):
    """Plain tensors, as in the public code; `saved` names those that are buffers."""

    def __init__(self, slots: int, channels: int, saved: tuple[str, ...] = (), sign: float = 1.0) -> None:
        super().__init__()
        self.sign = sign
        for name in ("keys", "values"):
            drawn = torch.randn(slots, channels)
            if name in saved:
                self.register_buffer(name, drawn)
            else:
                setattr(self, name, drawn)

    def forward(self, x: Any) -> Any:
        return self.sign * recalled(x, self.keys, self.values)


class Wrong(NormalityMemory):
    def forward(self, x: Any, ask: Any = "keys") -> Any:
        return -super().forward(x, ask)


SAVED: dict[str, Any] = {
    "right": lambda slots, channels: NormalityMemory(channels, slots=slots),
    "state_dict() is empty": Forgetful,
    "expected keys and values": lambda slots, channels: Forgetful(slots, channels, ("keys",)),
    "saved and not trained": lambda slots, channels: Forgetful(slots, channels, ("keys", "values")),
    "no longer recalls": lambda slots, channels: Wrong(channels, slots=slots),
    "not answered": None,
}


@pytest.mark.parametrize("said", SAVED)
def test_saved_memory(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    checks.saved_memory(SAVED[said])
    assert said in capsys.readouterr().out


RIGHT = {"largest share": 0.131, "temperature for 0.9": 2 / log(441), "bytes": 307_200}


@pytest.mark.parametrize(
    ("changed", "said"),
    [({}, "right"), ({"bytes": 153_600}, "not yet: 153600"), ({"largest share": None}, "not answered")],
)
def test_memory_numbers(changed: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    checks.memory_numbers(RIGHT | changed)
    assert said in capsys.readouterr().out


def test_own_memory_keeps_the_length_of_training(capsys: pytest.CaptureFixture[str]) -> None:
    checks.own_memory(None, lambda options: pytest.fail("trained"), None)  # type: ignore[arg-type]
    checks.own_memory({"steps": 900}, lambda options: pytest.fail("trained"), None)  # type: ignore[arg-type]
    said = capsys.readouterr().out
    assert "not answered" in said and "leave steps as they are" in said
