"""Necks: any student in reverse may put one between embedding and decoder, and learns its losses too."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from kdlib import teachers
from kdlib.contract import Batch
from kdlib.layers.memory import CRAM
from kdlib.layers.necks import NECKS, Through
from kdlib.layers.students import ForwardStudent, ReverseStudent


def a_batch() -> Batch:
    return Batch(image=torch.rand(2, 3, 64, 64), category=torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("host", ["rd", "dnpkd", "snl"])
def test_any_host_may_have_a_memory(host: str, tmp_path: Path) -> None:
    model = tiny.build(host, neck="cram", neck_weight=0.5)
    assert isinstance(model.student.neck, CRAM)
    named = model.loss(a_batch())
    without = tiny.build(host, neck="cram", neck_weight=0.0, seed=0).loss(a_batch())
    assert "compact" in named and "compact" in without
    before = model.student.neck.centres.clone()
    tiny.fit(model, tiny.normal(tmp_path))
    assert not torch.equal(before, model.student.neck.centres)


def test_its_loss_enters_the_total_with_its_weight() -> None:
    batch = a_batch()
    light, heavy = (tiny.build("rd", neck="cram", neck_weight=w).eval().loss(batch) for w in (0.0, 2.0))
    torch.testing.assert_close(heavy["total"], light["total"] + 2 * light["compact"])


def test_without_a_neck_the_embedding_passes() -> None:
    z = torch.rand(1, 4, 2, 2)
    passed, named = Through(4)(z)
    assert passed is z and named == {}
    assert set(NECKS) == {"none", "cram", "sspcab"}
    with pytest.raises(ValueError, match="neck is 'sieve'; expected one of none, cram, sspcab"):
        tiny.build("rd", neck="sieve")


def test_every_student_answers_alike() -> None:
    teacher = teachers.teacher("resnet18", weights="random")
    x = torch.rand(2, 3, 64, 64)
    t = teacher(x)
    for student in (ReverseStudent(teacher), ForwardStudent(teachers.student_like(teacher))):
        features, named = student(x, t)
        assert [f.shape for f in features] == [f.shape for f in t] and named == {}


def test_maps_that_do_not_halve_are_refused() -> None:
    teacher = teachers.teacher("resnet18", weights="random")
    x = torch.rand(1, 3, 64, 64)
    t = [f[..., 1:, 1:] for f in teacher(x)]
    with pytest.raises(ValueError, match=r"maps of \[\(15, 15\), \(7, 7\), \(3, 3\)\].*do not halve"):
        ReverseStudent(teacher)(x, t)
