"""Reverse distillation: shapes and sizes of its paper and official code, and its switches."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from torch import nn

from kdlib import losses
from kdlib.contract import Batch
from kdlib.methods import preset
from kdlib.methods.rd import RD, RDConfig


def outline(**overrides: Any) -> RD:
    """A model without numbers, for its sizes."""
    with torch.device("meta"):
        model = tiny.build("rd", **{"weights": "random", **overrides})
    assert isinstance(model, RD)
    return model


def millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def test_defaults_are_those_of_the_official_code() -> None:
    config = preset("rd/mvtec")
    assert isinstance(config, RDConfig)
    assert (config.lr, config.betas, config.batch_size, config.epochs) == (0.005, (0.5, 0.999), 16, 200)
    assert (config.backbone, config.loss, config.fusion, config.blur) == ("wide_resnet50_2", "global", "sum", 4)
    assert config.align_corners and config.multi_scale


@pytest.mark.parametrize(
    ("backbone", "parts", "total"),
    [
        ("wide_resnet50_2", (10.62, 48.26, 24.92), 83.8),
        ("resnet50", None, 46.65),
        ("resnet34", None, 22.17),
        ("resnet18", (0.66, 11.02, 3.70), 15.38),
    ],
)
def test_parameters(backbone: str, parts: tuple[float, ...] | None, total: float) -> None:
    model = outline(backbone=backbone)
    assert model.student.bottleneck.reduce is not None
    found = [
        millions(part)
        for part in (model.student.bottleneck.reduce, model.student.bottleneck.embed, model.student.decoder)
    ]
    assert sum(found) == pytest.approx(total, abs=0.01)
    assert sum(p.numel() for p in model.student_parameters()) / 1e6 == pytest.approx(sum(found))
    if parts:
        assert found == pytest.approx(parts, abs=0.006)


def test_shapes() -> None:
    model = outline(backbone="resnet18")
    x = torch.empty(1, 3, 256, 256, device="meta")
    assert model.student.bottleneck(model.teach(x)).shape == (1, 512, 8, 8)
    shapes = [tuple(s.shape) for _, s in model.pairs(x)]
    assert shapes == [(1, 64, 64, 64), (1, 128, 32, 32), (1, 256, 16, 16)]
    assert model.student.bottleneck(model.teach(torch.empty(1, 3, 224, 224, device="meta"))).shape[-2:] == (7, 7)


def test_sizes_that_the_decoder_cannot_restore() -> None:
    model = tiny.build("rd").eval()
    for height, width in ((240, 256), (64, 72)):
        with pytest.raises(ValueError, match=f"{height} x {width}.*multiples of 32"):
            model.anomaly_map(torch.rand(1, 3, height, width))


def test_strides_that_do_not_double() -> None:
    with pytest.raises(ValueError, match=r"\(4, 16\).*double"):
        tiny.build("rd", strides=(4, 16))
    assert len(tiny.build("rd", strides=(8, 16)).pairs(torch.rand(2, 3, 64, 64))) == 2


def test_the_paper_and_the_code_have_different_losses() -> None:
    batch = Batch(image=torch.rand(2, 3, 64, 64), category=torch.zeros(2, dtype=torch.long))
    for loss, distance in (("global", losses.global_cosine), ("per_position", losses.per_position_cosine)):
        model = tiny.build("rd", loss=loss, seed=1).eval()
        expected = losses.over_levels(model.pairs(batch.image), distance)
        torch.testing.assert_close(model.loss(batch)["total"], expected["total"])
    with pytest.raises(ValueError, match=r"'local'.*global, per_position"):
        tiny.build("rd", loss="local")


@pytest.mark.parametrize("wrong", [{"width": 0}, {"embed_blocks": 0}, {"decoder_blocks": ()}, {"decoder_blocks": (1,)}])
def test_counts_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected counts of 1 or more, decoder_blocks for 3 levels"):
        RDConfig(**wrong)


def test_switches_change_the_embedding() -> None:
    wide, alone = outline(backbone="resnet18", width=64), outline(backbone="resnet18", multi_scale=False)
    assert wide.student.bottleneck.out_channels == 64 and alone.student.bottleneck.reduce is None
    x = torch.empty(1, 3, 64, 64, device="meta")
    assert wide.student.bottleneck(wide.teach(x)).shape == (1, 64, 2, 2)
    assert alone.pairs(x)[0][1].shape == (1, 64, 16, 16)
    blocks = outline(backbone="resnet18", embed_blocks=1, decoder_blocks=(1, 2, 3))
    assert len(blocks.student.bottleneck.embed) == 1 and [len(s) for s in blocks.student.decoder.stages] == [1, 2, 3]  # type: ignore[arg-type]


def test_only_teachers_with_negative_features_get_a_decoder_without_the_last_relu() -> None:
    x = torch.rand(2, 3, 64, 64)
    after_relu = tiny.build("rd", backbone="resnet18", weights="random").eval()
    assert all(s.min() >= 0 and t.min() >= 0 for t, s in after_relu.pairs(x))
    signed = tiny.build("rd").eval()
    assert all(s.min() < 0 and t.min() < 0 for t, s in signed.pairs(x))


def test_the_bottleneck_is_the_only_way_to_the_decoder() -> None:
    model = tiny.build("rd").eval()
    features = [f.clone() for f in model.teach(torch.rand(1, 3, 64, 64))]
    embedding = model.student.bottleneck(features)  # type: ignore[operator]
    restored = model.student.decoder(embedding)  # type: ignore[operator]
    handed = model.pairs(torch.rand(1, 3, 64, 64), teacher=features)
    assert all(torch.equal(a, s) for a, (_, s) in zip(restored, handed, strict=True))
