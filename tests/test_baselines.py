"""Baselines: which patches `nearest` remembers."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

import kdlib as kd
from kdlib.methods.baselines import greedy_coreset


def test_a_greedy_coreset_takes_the_farthest_patch_first() -> None:
    torch.manual_seed(0)
    line = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0]])
    chosen = greedy_coreset(line, 3)
    first = line[chosen[0]]
    assert torch.equal(line[chosen[1]], line[(line - first).abs().argmax()])
    assert {int(line[i].item()) // 10 for i in chosen} == {0, 1}


def test_a_greedy_coreset_covers_better_than_chance() -> None:
    torch.manual_seed(0)
    patches = torch.randn(2000, 5) * torch.tensor([9.0, 3.0, 1.0, 1.0, 1.0])
    chosen = greedy_coreset(patches, 50)
    assert len(chosen.unique()) == 50
    farthest = [torch.cdist(patches, patches[i]).amin(1).max() for i in (chosen, torch.randperm(2000)[:50])]
    assert farthest[0] < 0.7 * farthest[1]


def test_distances_survive_the_projection() -> None:
    torch.manual_seed(0)
    centres = torch.randn(8, 300) * 10
    patches = centres.repeat(20, 1) + torch.randn(160, 300)
    assert sorted((greedy_coreset(patches, 8) % 8).tolist()) == list(range(8))


def test_more_patches_than_there_are_means_all() -> None:
    patches = torch.rand(6, 4)
    assert sorted(greedy_coreset(patches, 10).tolist()) == list(range(6))


def test_the_preset_remembers_a_coreset(tmp_path: Path) -> None:
    images = tiny.normal(tmp_path)
    model = kd.build("nearest/coreset", backbone="resnet18", weights="random", patches=12)
    tiny.fit(model, images)
    assert model.get_buffer("memory").shape[0] == 12
    assert torch.isfinite(model.anomaly_map(images[0]["image"][None])).all()


@pytest.mark.parametrize("name", ["mean", "nearest"])
def test_a_baseline_that_has_seen_nothing_is_refused(name: str, tmp_path: Path) -> None:
    model, images = kd.build(name, backbone="resnet18", weights="random"), tiny.normal(tmp_path)
    for use in (kd.calibrate, kd.evaluate):
        with pytest.raises(ValueError, match="not trained yet: it remembers no normal features; call kd"):
            use(model, images)


def test_no_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="patches is 0; expected 1 or more"):
        kd.build("nearest", patches=0)
