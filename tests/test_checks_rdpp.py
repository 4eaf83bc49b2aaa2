"""The checkers of notebook 07: a right answer, wrong ones, and none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

import kdlib as kd
from kdlib.course import checks
from kdlib.methods.rdpp import contrast_loss


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({60: 2, 209: 7, 280: 9}, "right: 60 images are 2 steps"),
        ({60: 4, 209: 14, 280: 18}, "not yet: 4 for '60'; the last batch"),
        ({60: 2, 209: 6, 280: 9}, "not yet: 6 for '209'"),
        ({60: None, 209: None, 280: None}, "not answered yet"),
    ],
)
def test_steps_with_accumulation(answer: Any, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    checks.accumulated_steps(answer)
    assert said(capsys).startswith(expected)


def cosines(n: Tensor, p: Tensor) -> Tensor:
    return torch.cosine_similarity(n.flatten(1), p.flatten(1))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (contrast_loss, "right"),
        (lambda n, p: (cosines(n, p) - 0.5).relu().sum(), "not yet: this is the sum"),
        (lambda n, p: (cosines(n, p) - 0.5).mean(), "not yet: below the margin"),
        (lambda n, p: (0.5 - cosines(n, p)).relu().mean(), "not yet: the cosine must become small"),
        (lambda n, p: (torch.cosine_similarity(n, p) - 0.5).relu().mean(), "not yet: here whole maps"),
        (lambda n, p: contrast_loss(n.detach(), p), "not yet: no gradient"),
        (lambda n, p: cosines(n, p), "not yet: expected one number"),
        (lambda n, p: n.mean(), "not yet: wrong values"),
        (lambda n, p: None, "not answered yet"),
        (None, "not answered yet"),
    ],
)
def test_contrast(answer: Any, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    checks.pushed_apart(answer)
    assert said(capsys).startswith(expected)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda x, y: (x.sort().values - y.sort().values).square().mean() / 2, "right: "),
        (lambda x, y: float((x.sort().values - y.sort().values).square().mean() / 2), "right: "),
        (lambda x, y: (x - y).square().mean() / 2, "not yet: the points are still matched in the order"),
        (lambda x, y: (x.sort().values - y.sort().values).square().mean(), "not yet: the cost is half"),
        (lambda x, y: (x.sort().values - y.sort().values).square().sum() / 2, "not yet: every point weighs"),
        (lambda x, y: x.mean() - y.mean(), "not yet: wrong value"),
        (lambda x, y: None, "not answered yet"),
    ],
)
def test_transport_on_a_line(answer: Any, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    checks.sorted_transport(answer)
    assert said(capsys).startswith(expected)


def test_own_defects_are_trained_only_if_they_are_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.data(tmp_path)
    to_beat = kd.evaluate(tiny.build("stpm").eval(), data.test)
    trained: list[Any] = []

    def train(settings: Any) -> Any:
        trained.append(settings)
        return to_beat

    wrong = {
        "not yet: 'steps' is not among": {"steps": 5000},
        "not yet: patch is": {"patch": (30.0, 10.0)},
        "not answered yet": None,
    }
    for expected, answer in wrong.items():
        checks.own_defects(answer, train, to_beat)
        assert said(capsys).startswith(expected) and not trained
    checks.own_defects({"noise_strength": 0.4}, train, to_beat)
    assert said(capsys).startswith("not yet: AUPRO") and trained == [{"noise_strength": 0.4}]
