"""Several networks as one teacher: features side by side, one fingerprint, one cache, students like it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import save_file

from kdlib import teachers
from kdlib.runtime import Runtime, processes
from kdlib.teachers import InTurn, Several
from kdlib.training.cache import TeacherCache, feature_shapes

FIRST, SECOND = "test_resnet", "test_efficientnet"  # the smallest that timm has
BOTH = f"{FIRST}+{SECOND}"


@pytest.fixture
def both() -> Several:
    teacher = teachers.teacher(BOTH, weights="random")
    assert isinstance(teacher, Several)
    return teacher


def test_features_stand_side_by_side_each_network_normalising_for_itself(both: Several) -> None:
    x = torch.rand(2, 3, 64, 96)
    alone = [teachers.teacher(name, weights="random")(x) for name in (FIRST, SECOND)]
    assert both.channels == (32 + 24, 48 + 32, 192 + 48) and both.strides == (4, 8, 16)
    for joined, *parts in zip(both(x), *alone, strict=True):
        assert torch.equal(joined, torch.cat(parts, dim=1))


def test_it_is_frozen_and_named_like_one(both: Several) -> None:
    both.train()
    assert both.frozen and not any(m.training for m in both.modules())
    assert not any(p.requires_grad for p in both.parameters())
    assert both.name == f"{FIRST}.r160_in1k+{SECOND}.r160_in1k"
    assert str(both.weights) == f"seed {teachers.RANDOM_SEED} (random) + seed {teachers.RANDOM_SEED} (random)"


def test_the_fingerprint_is_that_of_all(both: Several) -> None:
    again = teachers.teacher(BOTH, weights="random")
    turned = teachers.teacher(f"{SECOND}+{FIRST}", weights="random")
    assert both.fingerprint() == again.fingerprint() != turned.fingerprint()
    with torch.no_grad():
        next(again.networks()[1].parameters()).mul_(2)
    assert both.fingerprint() != again.fingerprint()


def test_its_style_is_enough_for_the_deepest() -> None:
    style = teachers.teacher("resnet34+tf_efficientnet_lite0", weights="random").style()
    assert (style.block, style.wide, style.blocks, style.signed) == ("basic", False, (3, 4, 6), True)


def test_its_features_are_cached(both: Several) -> None:
    images = torch.rand(5, 3, 64, 64)
    runtime = Runtime(device=torch.device("cpu"))
    shapes = feature_shapes(both, images[:1], runtime)
    parts = zip(torch.arange(5).split(2), images.split(2), strict=True)
    cache = TeacherCache(both, shapes, parts, len(images), runtime, processes(), progress=False)
    for stored, fresh in zip(cache[torch.tensor([4, 1])], both(images[[4, 1]]), strict=True):
        torch.testing.assert_close(stored, fresh)


@pytest.mark.parametrize("method", ["rd", "stpm", "snl", "dhkd", "dnpkd", "dbfad", "mean"])
def test_methods_learn_from_it(method: str, tmp_path: Path) -> None:
    model = tiny.build(method, backbone=BOTH, weights="random", steps=2)
    tiny.fit(model, tiny.normal(tmp_path, 4))
    assert model.eval().anomaly_map(torch.rand(1, 3, 64, 64)).isfinite().all()


def test_a_student_like_it(both: Several) -> None:
    student, copy = teachers.student_like(both), teachers.student_like(both, "pretrained")
    x = torch.rand(2, 3, 64, 64)
    assert all(p.requires_grad for p in student.parameters()) and not student.frozen
    assert student.fingerprint() != both.fingerprint() == copy.fingerprint()
    assert all(torch.equal(a, b) for a, b in zip(copy.eval()(x), both(x), strict=True))


def test_a_file_for_each(tmp_path: Path) -> None:
    for name in (FIRST, SECOND):
        save_file(teachers.classifier(name, "random").state_dict(), tmp_path / f"{name}.safetensors")
    first, second = (str(tmp_path / f"{name}.safetensors") for name in (FIRST, SECOND))
    teacher = teachers.teacher(BOTH, weights=f"{first}+{second}")
    assert str(teacher.weights) == f"{FIRST}.safetensors (file) + {SECOND}.safetensors (file)"
    with pytest.raises(ValueError, match=r"for the 2 networks .*one for each"):
        teachers.teacher(BOTH, weights=first)


def test_levels_in_turn() -> None:
    x = torch.rand(2, 3, 64, 96)
    teacher = teachers.teacher(BOTH, ((4, 8), (8, 16)), "random")
    assert isinstance(teacher, InTurn)
    assert (teacher.strides, teacher.channels) == ((4, 8, 8, 16), (32, 48, 32, 48))
    alone = [teachers.teacher(FIRST, (4, 8), "random"), teachers.teacher(SECOND, (8, 16), "random")]
    expected = [feature for network in alone for feature in network(x)]
    assert all(torch.equal(a, b) for a, b in zip(teacher(x), expected, strict=True))
    assert teacher.split(["a", "b", "c", "d"]) == [["a", "b"], ["c", "d"]]  # type: ignore[list-item,comparison-overlap]
    assert teacher.frozen and not any(p.requires_grad for p in teacher.parameters())
    assert len(teacher.style().blocks) == 4
    student, copy = teachers.student_like(teacher), teachers.student_like(teacher, "pretrained")
    assert student.fingerprint() != teacher.fingerprint() == copy.fingerprint()


def test_levels_in_turn_are_no_levels_side_by_side() -> None:
    in_turn, side_by_side = (teachers.teacher(BOTH, s, "random") for s in (((4, 8), (4, 8)), (4, 8)))
    assert in_turn.fingerprint() != side_by_side.fingerprint()


@pytest.mark.parametrize(
    ("name", "strides"), [(FIRST, ((4, 8), (16, 32))), (BOTH, ((4, 8),)), (BOTH, ((4, 8), 16)), (FIRST, ((4, 8),))]
)
def test_a_list_of_strides_for_each(name: str, strides: Any) -> None:
    with pytest.raises(ValueError, match=r"expected one list for all, like \(4, 8, 16\)"):
        teachers.teacher(name, strides, "random")


def test_networks_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match=r"at \(4, 8\).*at \(2, 4\).*same strides"):
        Several([teachers.teacher(FIRST, strides, "random") for strides in ((4, 8), (2, 4))])
    with pytest.raises(ValueError, match="two or more"):
        Several([teachers.teacher(FIRST, weights="random")])
    with pytest.raises(ValueError, match=r"unknown network 'resnet19'"):
        teachers.teacher("resnet18+resnet19", weights="random")
    uneven = teachers.teacher(f"{FIRST}+test_convnext", (8,), "random")
    with pytest.raises(ValueError, match=r"maps of 9 x 9 and 8 x 8 .*multiples of 8"):
        uneven(torch.rand(1, 3, 68, 68))
