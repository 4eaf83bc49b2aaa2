"""The checkers of notebook 09: a right answer, typical wrong ones, and none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import kdlib as kd
from kdlib.course import checks


def two_by_two(weights: Any, order: tuple[int, ...] = (0, 2, 1, 3)) -> Any:
    a, b, c, d = (weights[i] for i in order)
    return torch.cat([torch.cat([a, b], dim=3), torch.cat([c, d], dim=3)], dim=2)


def everywhere(logits: Any) -> Any:
    return torch.softmax(logits.flatten(2), dim=2).view_as(logits)


CASES: list[tuple[str, Any, str]] = [
    ("undisturbed_guesses", {0: None, 1: None, 2: None}, "not answered yet"),
    ("undisturbed_guesses", {0: 36, 1: 16, 2: 4}, "right"),
    ("undisturbed_guesses", {0: 36, 1: 25, 2: 4}, "not yet: 25 for '1'"),
    ("one_kernel", None, "not answered yet"),
    ("one_kernel", lambda weights: None, "not answered yet"),
    ("one_kernel", lambda weights: (two_by_two(weights), 4, 2), "right"),
    ("one_kernel", lambda weights: (weights[0], 4, 2), "not yet: expected a kernel (3, 3, 2, 2), found (3, 3, 1, 1)"),
    ("one_kernel", lambda weights: (two_by_two(weights), 4, 0), "not yet: the map becomes (5, 5)"),
    ("one_kernel", lambda weights: (two_by_two(weights), 2, 1), "not yet: with a dilation of 2"),
    ("one_kernel", lambda weights: (two_by_two(weights, (0, 1, 2, 3)), 4, 2), "not yet: rows and columns"),
    ("one_kernel", lambda weights: (two_by_two(weights, (3, 1, 2, 0)), 4, 2), "not yet: the kernel is turned over"),
    ("one_kernel", lambda weights: (two_by_two(weights, (0, 0, 1, 3)), 4, 2), "not yet: a weight is in the wrong"),
    ("fair_attention", None, "not answered yet"),
    ("fair_attention", lambda a, logits: None, "not answered yet"),
    ("fair_attention", lambda a, logits: 24 * a * everywhere(logits), "right"),
    ("fair_attention", lambda a, logits: a.mean(1), "not yet: expected features like a"),
    ("fair_attention", lambda a, logits: a * everywhere(logits), "not yet: the weights sum to 1"),
    ("fair_attention", lambda a, logits: a * logits.softmax(3), "not yet: this is the softmax over the width"),
    ("fair_attention", lambda a, logits: 6 * a * logits.softmax(3), "not yet: over the width alone"),
    ("fair_attention", lambda a, logits: a * logits.softmax(1), "not yet: this is a softmax over channels"),
    ("fair_attention", lambda a, logits: 24 * everywhere(logits), "not yet: these are the weights alone"),
    ("fair_attention", lambda a, logits: a * logits, "not yet: these are not features"),
]


@pytest.mark.parametrize(("name", "answer", "start"), CASES)
def test_a_checker_judges_the_answer(name: str, answer: Any, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    getattr(checks, name)(answer)
    out = capsys.readouterr().out
    assert out.startswith(start) and out.count("\n") == 1


def test_own_students_have_a_score_to_beat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.data(tmp_path)
    perfect = kd.evaluate(tiny.build("dbfad").eval(), data.test, device="cpu")
    perfect.kept_maps[:] = perfect.masks
    blind = replace(perfect, kept_maps=1 - perfect.maps)
    for answer, own, other in (
        (None, perfect, blind),
        ({"residual": False}, perfect, blind),
        ({"steps": 9000}, perfect, blind),
        ({"residuals": False}, blind, perfect),
        ({"residuals": False}, perfect, blind),
    ):
        checks.own_fabric_student(answer, lambda options, own=own: own, other)  # type: ignore[misc]
    starts = ["not answered yet", "not yet: dbfad has no setting 'residual'", "not yet: 'steps' is fixed"]
    lines = capsys.readouterr().out.splitlines()
    for line, start in zip(lines, [*starts, "not yet: AUPRO", "right: AUPRO"], strict=True):
        assert line.startswith(start)
