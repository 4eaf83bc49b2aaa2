"""The checkers of notebook 12: a right answer, wrong ones, and none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from sklearn.metrics import roc_auc_score

import kdlib as kd
from kdlib import losses
from kdlib.course import checks

Printed = pytest.CaptureFixture[str]
SCORES = np.random.default_rng(1).random((5, 30)) + np.linspace(0, 1, 30)
LABELS = np.repeat([0, 1], 15)


def said(printed: Printed, text: str) -> bool:
    return text in printed.readouterr().out


def test_none_is_no_answer(capsys: Printed) -> None:
    checks.best_gate({"gate": None, "weight": None})  # type: ignore[dict-item]
    checks.hardest(lambda t, s, count: None)
    checks.optimism(lambda scores, labels, halves: None, SCORES, LABELS)
    checks.own_settings(None, lambda settings: None, None)  # type: ignore[arg-type, return-value]
    assert capsys.readouterr().out.splitlines() == ["not answered yet"] * 4


def test_best_gate(capsys: Printed) -> None:
    checks.best_gate({"gate": 0.9977, "weight": 409.6})
    assert said(capsys, "right: ")
    checks.best_gate({"gate": 0.5, "weight": 409.6})
    assert said(capsys, "not yet: 0.5 for 'gate'")


def worst(t: Any, s: Any, count: int) -> Any:
    flat = losses.cosine_distance(t, s).flatten(1)
    return flat.topk(min(count, flat.shape[1]), dim=1).values.mean()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (worst, "right: "),
        (
            lambda t, s, n: losses.cosine_distance(t, s).flatten().topk(3 * min(n, 20)).values.mean(),
            "of the whole batch",
        ),
        (lambda t, s, n: losses.cosine_distance(t, s).mean(), "the mean of all positions"),
        (lambda t, s, n: -(-losses.cosine_distance(t, s)).flatten(1).topk(n).values.mean(), "best restored"),
        (lambda t, s, n: n * worst(t, s, n), "take their mean"),
        (lambda t, s, n: losses.cosine_distance(t, s), "expected one number"),
        (lambda t, s, n: worst(t, s, min(n, 9)), "all of them count"),
        (lambda t, s, n: torch.tensor(7.0), "found 7.0000"),
    ],
)
def test_hardest(answer: Callable[..., Any], message: str, capsys: Printed) -> None:
    checks.hardest(answer)
    assert said(capsys, message)


def gaps(scores: Any, labels: Any, halves: Any, *, then: Callable[[list[float], list[float]], float]) -> float:
    found = []
    for half in halves:
        here, there = ([roc_auc_score(labels[part], each[part]) for each in scores] for part in (half, ~half))
        found.append(then(here, there))
    return float(np.mean(found))


@pytest.mark.parametrize(
    ("then", "message"),
    [
        (lambda here, there: max(here) - there[int(np.argmax(here))], "right: "),
        (lambda here, there: there[int(np.argmax(here))] - max(here), "the sign is turned"),
        (lambda here, there: max(here) - there[-1], "not with the last checkpoint"),
        (lambda here, there: 0.0, "are those of the half that chose"),
        (lambda here, there: 9.0, "expected another mean"),
    ],
)
def test_optimism(
    then: Callable[[list[float], list[float]], float], message: str, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks.aand, "_halves", partial(checks.aand._halves, count=20))  # two hundred take a minute
    checks.optimism(lambda *given: gaps(*given, then=then), SCORES, LABELS)
    assert said(capsys, message)


def test_own_settings(tmp_path: Path, capsys: Printed) -> None:
    data = tiny.data(tmp_path)
    result = kd.evaluate(tiny.build("aand"), data.test, device="cpu", precision="fp32")

    def train(settings: Any) -> kd.Result:
        tiny.build("aand", **settings)
        return result

    checks.own_settings({"steps": 5}, train, result)
    assert said(capsys, "not yet: 'steps' may not change here")
    checks.own_settings({"push": -1.0}, train, result)
    assert said(capsys, "not yet: push is -1.0")
    checks.own_settings({"push": 0.1}, train, result)
    assert said(capsys, "image AUROC")
