"""PDN: what it is taught, and its product, a file that any method takes as its teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dataset_trees as trees
import pytest
import tiny
import torch
from torch.nn import functional as F

import kdlib as kd
from kdlib.contract import Batch
from kdlib.files import read_tensors, write_tensors
from kdlib.methods import preset
from kdlib.methods.pdn import PDN, PDNConfig
from kdlib.trials import run as runs

pytestmark = pytest.mark.filterwarnings("ignore:.*RANDOM:UserWarning")


def built(**options: object) -> PDN:
    model = tiny.build("pdn", **options)
    assert isinstance(model, PDN)
    return model.eval()


def test_defaults_are_the_papers() -> None:
    config = preset("pdn/mvtec")
    assert isinstance(config, PDNConfig)
    assert (config.steps, config.batch_size, config.lr, config.weight_decay) == (60_000, 16, 1e-4, 1e-5)
    assert (config.backbone, config.strides, config.shrink) == ("wide_resnet101_2", (8, 16), 2)


def test_the_target_is_all_levels_on_the_students_grid() -> None:
    model = built()
    x = torch.rand(2, 3, 64, 96)
    (target, s), features = model.pairs(x)[0], model.teach(x)
    assert target.shape == s.shape == (2, 96, 16, 24)
    coarse = F.interpolate(features[1], size=(16, 24), mode="bilinear")
    stacked = torch.cat([features[0], coarse], 1)[0, :, 5, 7]
    torch.testing.assert_close(target[0, :, 5, 7], F.adaptive_avg_pool1d(stacked[None], 96)[0])


def test_a_shrunk_image_has_a_smaller_grid() -> None:
    assert built(shrink=2).pairs(torch.rand(1, 3, 64, 64))[0][1].shape[-2:] == (8, 8)


def test_the_loss_counts_auxiliary_images_as_much() -> None:
    model, (x, other) = built(), torch.rand(2, 2, 3, 64, 64)
    category = torch.zeros(2, dtype=torch.long)
    with torch.no_grad():
        mean = [float(model.loss(Batch(image=images, category=category))["total"]) for images in (x, other)]
        both = model.loss(Batch(image=x, category=category, auxiliary=other))["total"]
    assert float(both) == pytest.approx(sum(mean) / 2, rel=1e-5)


def test_its_product_is_a_teacher(tmp_path: Path) -> None:
    images, model = tiny.normal(tmp_path / "images"), built()
    tiny.fit(model, images)
    x = torch.rand(1, 3, 64, 64)
    inner = model.student(model.normalise(x))[..., 4:-4, 4:-4]
    write_tensors(tmp_path / "weights.safetensors", model.get_submodule(model.product).state_dict(), {})
    saved = kd.save(tiny.calibrated(model, images), tmp_path / "saved") / "model.safetensors"
    for file in (tmp_path / "weights.safetensors", saved):
        teacher = kd.teachers.teacher("pdn_small_quarter", (4,), file)
        torch.testing.assert_close(teacher(x)[0], inner, rtol=1e-4, atol=1e-5)
    student = tiny.build("efficientad", weights=str(saved))
    assert "saved" not in str(student.teacher.weights) and student.teacher.fingerprint() == teacher.fingerprint()
    other = kd.teachers.teacher("pdn_small_quarter", (4,), "random")
    assert other.fingerprint() != teacher.fingerprint()


def test_the_file_that_is_shipped() -> None:
    teacher = kd.teachers.teacher("pdn_small_quarter", (4,))
    assert teacher.weights.kind == "shipped" and teacher.channels == (96,) and teacher.strides == (4,)
    assert teacher.weights.path is not None and teacher.weights.path.with_suffix(".json").is_file()
    assert len(read_tensors(teacher.weights.path)[0]) == 8


@pytest.mark.parametrize("wrong", [{"width": 0.3}, {"shrink": 0}, {"auxiliary": -1.0}])
def test_what_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        PDNConfig(**wrong)  # type: ignore[arg-type]


def test_run_leaves_a_file_of_weights(tmp_path: Path) -> None:
    trees.mvtec(tmp_path / "data", "bottle", train=8)
    settings: dict[str, Any] = {"size": 64, "device": "cpu", "precision": "fp32", "maps": "plain", "protocol": "multi"}
    settings |= {"data": str(tmp_path / "data"), "overrides": {"steps": 2, "batch_size": 4}}
    with pytest.raises(ValueError, match="nowhere"):
        runs.run(runs.Settings(auxiliary="nowhere", **settings), ["pdn"], None, [0], tmp_path / "out", print)
    assert not (tmp_path / "out").exists()
    runs.run(runs.Settings(auxiliary="textures", **settings), ["pdn"], None, [0], tmp_path / "out", print)
    file = tmp_path / "out" / "models" / "pdn-all-seed0" / "weights.safetensors"
    assert all(tensor.dtype == torch.float16 for tensor in read_tensors(file)[0].values())
    assert kd.teachers.teacher("pdn_small_quarter", (4,), file).weights.kind == "file"


@pytest.mark.filterwarnings("default:.*RANDOM:UserWarning")
def test_a_network_without_weights_says_so_and_has_no_blocks() -> None:
    for weights in ("auto", "hub"):
        with pytest.warns(UserWarning, match=r"no weights for 'pdn_medium'.*RANDOM.*run pdn"):
            kd.teachers.teacher("pdn_medium", (4,), weights=weights)
    with pytest.raises(ValueError, match="'pdn_small_quarter' has one level, at stride 4, and no blocks"):
        kd.teachers.teacher("pdn_small_quarter", (4,), blocks=(3,))
