"""The checkers of notebook 03's exercises that build: a right answer, typical wrong ones, and none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

import kdlib as kd
from kdlib.course import checks


def won(scores: Any, labels: Any, tie: float = 0.5) -> Any:
    """AUROC as the share of pairs that are won."""
    normal, bad = scores[labels == 0], scores[labels == 1]
    return np.mean([(b > n) + tie * (b == n) for b in bad for n in normal])


def mean_and_pooled(scores: Any, labels: Any, categories: Any, tie: float = 0.5) -> Any:
    each = [won(scores[categories == c], labels[categories == c], tie) for c in set(categories)]
    return np.mean(each), won(scores, labels, tie)


def by_images(scores: Any, labels: Any, categories: Any) -> Any:
    each = [roc_auc_score(labels[categories == c], scores[categories == c]) for c in categories]
    return np.mean(each), roc_auc_score(labels, scores)


def tries(t: Any, students: Any) -> Any:
    return torch.stack([centre + (t - centre) @ v.T @ v for centre, v in students])


def routed(t: Any, students: Any) -> Any:
    restored = tries(t, students)
    distance = 1 - F.cosine_similarity(restored, t[None], dim=-1)
    best = distance.mean((2, 3)).argmin(0)
    return restored[best, torch.arange(len(t))]


def chosen(t: Any, students: Any, sign: int = 1, whole: bool = False) -> Any:
    """Place of the best student of each image, or of the whole batch; of the worst for sign -1."""
    error = (tries(t, students) - t).square().mean((2, 3, 4))
    return (sign * (error.mean(1) if whole else error)).argmin(0)


def by_position(t: Any, students: Any) -> Any:
    restored = tries(t, students)
    best = (restored - t).square().sum(-1).argmin(0)
    return torch.stack([torch.where(best[..., None] == k, r, 0.0) for k, r in enumerate(restored)]).sum(0)


def by_centre(t: Any, students: Any) -> Any:
    distance = torch.stack([(t.mean((1, 2)) - centre).square().sum(1) for centre, _ in students])
    return tries(t, students)[distance.argmin(0), torch.arange(len(t))]


def from_zero(t: Any, students: Any, back: bool = False) -> Any:
    parts = [(students[k], image) for k, image in zip(chosen(t, students), t, strict=True)]
    return torch.stack([(image - c if back else image) @ v.T @ v for (c, v), image in parts])


CASES: list[tuple[str, Any, str]] = [
    ("mean_and_pooled", None, "not answered yet"),
    ("mean_and_pooled", lambda *parts: None, "not answered yet"),
    ("mean_and_pooled", mean_and_pooled, "right: mean 0."),
    ("mean_and_pooled", lambda *parts: 0.5, "not yet: expected two numbers"),
    ("mean_and_pooled", lambda *parts: mean_and_pooled(*parts)[::-1], "not yet: the two numbers are right"),
    ("mean_and_pooled", lambda s, *parts: mean_and_pooled(-s, *parts), "not yet: you count the pairs that are lost"),
    ("mean_and_pooled", lambda *parts: mean_and_pooled(*parts, tie=0), "not yet: a pair with equal scores counts one"),
    ("mean_and_pooled", lambda *parts: mean_and_pooled(*parts, tie=1), "not yet: a pair with equal scores counts one"),
    ("mean_and_pooled", by_images, "not yet: in the mean every category"),
    ("mean_and_pooled", lambda *parts: (mean_and_pooled(*parts)[0], 0.5), "not yet: the mean is right, pooled 0.500"),
    ("mean_and_pooled", lambda *parts: (0.5, 0.5), "not yet: mean 0.500: form"),
    ("routed", None, "not answered yet"),
    ("routed", lambda t, students: None, "not answered yet"),
    ("routed", routed, "right"),
    ("routed", lambda t, students: routed(t, students)[0], "not yet: expected a tensor like t"),
    ("routed", by_position, "not yet: every position"),
    (
        "routed",
        lambda t, students: tries(t, students)[chosen(t, students, whole=True)],
        "not yet: one student",
    ),
    ("routed", lambda t, students: routed(t, students) + 1, "not yet: nobody"),
    (
        "routed",
        lambda t, students: tries(t, students)[chosen(t, students, sign=-1), range(5)],
        "not yet: these",
    ),
    ("routed", by_centre, "not yet: the nearest centre"),
    ("routed", lambda t, students: tries(t, students).mean(0), "not yet: this is the mean"),
    ("routed", from_zero, "not yet: the centre is not subtracted"),
    ("routed", lambda t, students: from_zero(t, students, back=True), "not yet: the centre is not added"),
    ("routed", lambda t, students: t, "not yet: these are the features"),
]


@pytest.mark.parametrize(("name", "answer", "start"), CASES)
def test_a_checker_judges_the_answer(name: str, answer: Any, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    getattr(checks, name)(answer)
    out = capsys.readouterr().out
    assert out.startswith(start) and out.count("\n") == 1


def test_a_joint_student_has_a_score_to_beat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tiny.data(tmp_path, "bottle", "cable")
    sets = {name: data.test.of(name) for name in ("bottle", "cable")}
    student = tiny.build()
    perfect = {name: kd.evaluate(student, images, device="cpu") for name, images in sets.items()}
    for result in perfect.values():
        result.kept_maps[:] = result.masks
    blind = {name: replace(result, kept_maps=1 - result.maps) for name, result in perfect.items()}
    checks.own_student(None, sets, perfect, 4)
    checks.own_student(student, sets, blind, 3)
    checks.own_student(student, sets, perfect, 4)
    checks.own_student(student, sets, blind, 4)
    starts = ["not answered yet", "not yet: trained for 4 steps", "not yet: AUPRO bottle", "right: AUPRO bottle"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 4
    assert "(to beat: 1.000), cable 0." in lines[2]
