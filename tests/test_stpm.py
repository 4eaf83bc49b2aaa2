"""STPM: what its paper and its official code say."""

from __future__ import annotations

import pytest
import tiny
import torch

from kdlib import losses
from kdlib.contract import Batch
from kdlib.methods import preset
from kdlib.methods.stpm import STPM, STPMConfig

RESNET = {"backbone": "resnet18", "weights": "random"}


def batch() -> Batch:
    return Batch(image=torch.rand(2, 3, 64, 64), category=torch.zeros(2, dtype=torch.long))


def test_defaults_are_those_of_the_official_code() -> None:
    config = preset("stpm/mvtec")
    assert isinstance(config, STPMConfig)
    optimiser = (config.lr, config.momentum, config.weight_decay, config.batch_size, config.epochs)
    assert optimiser == (0.4, 0.9, 1e-4, 32, 200)
    assert (config.backbone, config.strides, config.fusion, config.blur) == ("resnet18", (4, 8, 16), "product", 0)
    model = tiny.build("stpm/mvtec", weights="random")
    assert isinstance(model.optimiser(model.student_parameters()), torch.optim.SGD)


def test_student_is_the_teachers_trunk() -> None:
    model = tiny.build("stpm/mvtec", **RESNET)
    assert sum(p.numel() for p in model.student_parameters()) == pytest.approx(2.78e6, rel=2e-3)
    shapes = [tuple(s.shape) for _, s in model.pairs(torch.rand(1, 3, 256, 256))]
    assert shapes == [(1, 64, 64, 64), (1, 128, 32, 32), (1, 256, 16, 16)]


def test_a_student_that_starts_as_the_teacher_sees_nothing() -> None:
    model = tiny.build("stpm", student_init="pretrained", neighbourhood=1).eval()
    assert model.anomaly_map(batch().image).abs().amax() < 1e-6


def test_the_papers_half() -> None:
    with_half, without = (tiny.build("stpm", half=half, seed=1).eval() for half in (True, False))
    torch.testing.assert_close(2 * with_half.loss(batch_ := batch())["total"], without.loss(batch_)["total"])
    official = losses.over_levels(without.pairs(batch_.image), lambda t, s: losses.normalised_l2(t, s).mean())
    torch.testing.assert_close(without.loss(batch_)["total"], official["total"])


def test_any_size_and_levels() -> None:
    model = tiny.build("stpm", strides=(8, 16)).eval()
    assert isinstance(model, STPM) and len(model.pairs(torch.rand(1, 3, 50, 70))) == 2
    assert model.anomaly_map(torch.rand(1, 3, 50, 70)).shape == (1, 1, 50, 70)
