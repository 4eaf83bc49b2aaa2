"""MixedTeacher: student, losses and maps against the published code's values, its mistakes as options, its switches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import published
import pytest
import tiny
import torch
from published import close
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn import functional as F

from kdlib import teachers
from kdlib.contract import Batch
from kdlib.layers.reduced import ReducedStudent
from kdlib.methods import preset
from kdlib.methods.mixedteacher import MixedTeacher, MixedTeacherConfig, contrasted

SMALL = {"backbone": "test_resnet+test_efficientnet", "weights": "random", "context_strides": (8, 16)}
SIDE = 64  # of the reference's maps, in pixels


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    return published.arrays("mixedteacher")


def build(**overrides: Any) -> MixedTeacher:
    model = tiny.build("mixedteacher/mvtec", **SMALL | overrides)
    assert isinstance(model, MixedTeacher)
    return model.eval()


def student(*channels: int, signed: bool = False) -> ReducedStudent:
    """A student for a teacher of these channels that takes images as they are."""
    plain = {"mean": torch.zeros(1, 3, 1, 1), "std": torch.ones(1, 3, 1, 1)}
    return ReducedStudent(SimpleNamespace(channels=channels, style=lambda: SimpleNamespace(signed=signed), **plain))  # type: ignore[arg-type]


def renamed(name: str) -> str:
    """Our name of a tensor of the published student."""
    for theirs, ours in {
        "conv1.": "stem.0.",
        "bn1.": "stem.1.",
        "layer1.": "stages.0.",
        "layer2.": "stages.1.",
    }.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    raise AssertionError(name)


def test_the_reduced_student_is_the_published_one(reference: dict[str, Tensor]) -> None:
    net = student(6, 9)
    stored = {name.removeprefix("student/"): t for name, t in reference.items() if name.startswith("student/")}
    net.load_state_dict({renamed(name): tensor for name, tensor in stored.items()})
    for mode in ("eval", "train"):
        net.train(mode == "train")
        for level, ours in enumerate(net(reference["image"])):
            close(ours, reference[f"student_{mode}{level}"])


def test_at_its_real_width(reference: dict[str, Tensor]) -> None:
    net = student(64, 128).eval()
    assert sum(p.numel() for p in net.parameters()) == reference["full_params"] == 317_888
    shapes = {name: net.state_dict()[renamed(name)].shape for name in published.names("mixedteacher")}
    weights = {renamed(name): tensor for name, tensor in published.filled(shapes, 3500).items()}
    assert not net.load_state_dict(weights, strict=False).unexpected_keys
    fine, coarse = net(published.image(64))
    close(fine[0, ::8], reference["full_sub0"])
    close(coarse[0, ::16], reference["full_sub1"])


def levels(model: MixedTeacher, reference: dict[str, Tensor]) -> list[Tensor]:
    names = ("res0", "res1", "eff0", "eff1")
    return [model.distance(reference[f"teacher_{n}"], reference[f"student_{n}"])[:, None] for n in names]


def test_losses_are_the_published_ones_but_for_the_batch(
    reference: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    names = ("res0", "res1", "eff0", "eff1")
    pairs = [(reference[f"teacher_{n}"], reference[f"student_{n}"]) for n in names]
    monkeypatch.setattr(model, "pairs", lambda x, teacher=None: pairs)
    named = model.loss(Batch(image=torch.zeros(2, 3, 8, 8), category=torch.zeros(2)))
    close(2 * named["fine"], reference["loss_res"])
    close(2 * named["context"], reference["loss_eff"])
    assert named["total"] == named["fine"] + named["context"]


def test_maps_of_the_branches_are_the_published_ones(reference: dict[str, Tensor]) -> None:
    model = build()
    fine, context = model.branch_maps(levels(model, reference), (SIDE, SIDE), by_size=True)
    close(fine[:, 0] / 16**2, reference["map_res_no_blur"])
    close(context[:, 0] / 8**2, reference["map_eff_no_blur"])


def fused(reference: dict[str, Tensor], contrast: str, blur: float = 0.0) -> Tensor:
    """Our map [B, H, W] in the published code's units: its norm is no mean, its levels are divided by their sizes."""
    model = build(contrast=contrast, blur=blur * 256 / SIDE)
    values = SIDE if contrast == "column" else SIDE**2
    return model.fuse(levels(model, reference), (SIDE, SIDE))[:, 0] / (16**2 * 8**2 * values**0.5)


@pytest.mark.parametrize(("contrast", "stored"), [("column", "map_column_no_blur"), ("map", "map_whole_no_blur")])
def test_mixed_maps_are_the_published_ones(reference: dict[str, Tensor], contrast: str, stored: str) -> None:
    close(fused(reference, contrast), reference[stored])


def test_the_published_blur_runs_along_rows_only(reference: dict[str, Tensor]) -> None:
    sharp = fused(reference, "column")[0].numpy()
    rows = torch.from_numpy(gaussian_filter1d(sharp, 4, axis=1))
    close(rows, reference["map_column_blur_rowwise"])
    ours = fused(reference, "column", blur=4)[0]
    assert float((ours - rows).abs().max()) > 0.1 * float(rows.max())


def test_the_published_factor_depends_on_the_batch(reference: dict[str, Tensor]) -> None:
    model = build()
    _, context = model.branch_maps(levels(model, reference), (SIDE, SIDE), by_size=True)
    own = context.amax((1, 2, 3)) - context.amin((1, 2, 3))
    shared = context.amax() - context.amin()
    ours = fused(reference, "column", blur=4)
    close(ours * (shared / own)[:, None, None], reference["map_column_batch2_blur_2d"])
    assert float((shared / own).max()) > 1.1


def test_fine_features_of_the_teacher_are_averaged_over_two_by_two(reference: dict[str, Tensor]) -> None:
    close(F.avg_pool2d(reference["teacher_res1"], 2), reference["teacher_res_pooled1"])
    model, x = build(), torch.rand(2, 3, 64, 96)
    sizes = [tuple(t.shape[-2:]) for t, _ in model.pairs(x)]
    assert sizes == [(8, 12), (4, 6), (8, 12), (4, 6)]
    (t, _), *_ = model.pairs(x)
    assert torch.equal(t, F.avg_pool2d(model.teacher.networks()[0](x)[0], 2))
    (t, s), *_ = build(student="full").pairs(x)
    assert t.shape == s.shape == (2, 32, 16, 24)


def test_a_student_of_other_widths_than_its_teacher() -> None:
    model = build(widths=(16, 24))
    assert [tuple(row[0].conv2.weight.shape[:2]) for row in model.fine.stages] == [(16, 16), (24, 24)]
    assert [s.shape[1] for _, s in model.pairs(torch.rand(1, 3, 64, 64))] == list(model.teacher.channels)
    for widths in ((16,), (16, 0)):
        with pytest.raises(ValueError, match="expected a positive number for each"):
            build(widths=widths)


def test_features_below_zero_are_within_reach() -> None:
    x = torch.rand(1, 3, 64, 64)
    for overrides in ({}, {"widths": (16, 24)}):
        model = build(backbone="test_efficientnet+test_resnet", **overrides)
        signed = model.teacher.networks()[0].style().signed
        assert signed and all(s.min() < 0 for _, s in model.pairs(x)[:2])


def test_columns_of_one_norm_lose_their_contrast() -> None:
    """A hot column and quiet ones: each has norm 1 afterwards, whatever it had before."""
    amap = torch.rand(1, 1, 16, 8) * 0.1
    amap[..., 3] += 5
    by_column, whole = contrasted(amap, "column"), contrasted(amap, "map")
    norms = by_column.square().sum(2).sqrt()[0, 0]
    torch.testing.assert_close(norms, norms[:1].expand(8))
    torch.testing.assert_close(whole / whole.max(), amap / amap.max())
    assert whole[..., 3].mean() > 20 * whole[..., 0].mean()
    assert torch.equal(contrasted(amap, "none"), amap)
    assert torch.equal(contrasted(torch.zeros(1, 1, 4, 4), "map"), torch.zeros(1, 1, 4, 4))


def test_a_product_asks_both_teachers() -> None:
    """Two places: of one the fine branch is sure, of the other both are half sure."""
    fine, context = torch.tensor([0.9, 0.4]), torch.tensor([0.05, 0.4])
    level_maps = [m.view(1, 1, 1, 2) for m in (fine, 0 * fine, context, 0 * context)]
    for fusion, expected in (("sum", [0.95, 0.8]), ("product", [0.045, 0.16])):
        amap = build(contrast="none", blur=0.0, by_size=False, fusion=fusion).fuse(level_maps, (1, 2))
        torch.testing.assert_close(amap.flatten(), torch.tensor(expected))


def test_a_pretrained_context_student_never_disagrees() -> None:
    with torch.no_grad():
        copy, fresh = (
            build(student_init=init).level_maps(torch.rand(2, 3, 64, 64)) for init in ("pretrained", "random")
        )
    assert all(level.max() < 1e-6 for level in copy[2:])
    assert all(level.max() > 0.01 for level in (*copy[:2], *fresh))


def test_defaults_are_those_of_the_official_code() -> None:
    config = preset("mixedteacher/mvtec")
    assert isinstance(config, MixedTeacherConfig)
    assert (config.backbone, config.strides, config.context_strides) == ("resnet18+efficientnet_b0", (4, 8), (16, 32))
    assert (config.lr, config.betas, config.batch_size, config.epochs) == (0.004, (0.9, 0.999), 8, 100)
    with torch.device("meta"):
        model = MixedTeacher(MixedTeacherConfig(weights="random"))
    assert model.teacher.channels == (64, 128, 112, 320)
    assert sum(p.numel() for p in model.fine.parameters()) == 317_888


def test_the_rate_rises_and_falls_in_one_cycle() -> None:
    model = build(steps=20)
    (phase,) = model.phases([])  # type: ignore[arg-type]
    optimiser = phase.optimiser(phase.parameters)
    assert phase.scheduler is not None
    schedule, rates = phase.scheduler(optimiser), []
    for _ in range(phase.steps):
        rates.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    assert max(rates) == pytest.approx(0.004) and rates[0] == pytest.approx(0.004 / 25) and rates[-1] < 1e-6
    assert build(schedule="constant").schedule(20) is None and build(schedule="cosine").schedule(20) is not None


def test_settings_that_make_no_sense() -> None:
    for wrong in ({"backbone": "resnet18"}, {"context_strides": ()}, {"teacher_blocks": (1, 2)}):
        with pytest.raises(ValueError, match="expected two networks"):
            MixedTeacherConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"strides are \(8, 16\).*student='full'"):
        MixedTeacherConfig(strides=(8, 16))
    with pytest.raises(ValueError, match="contrast is 'row'; expected one of map, column, none"):
        MixedTeacherConfig(contrast="row")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"72 x 64 px.*multiples of 16"):
        build().anomaly_map(torch.rand(1, 3, 72, 64))


def test_its_teacher_gives_levels_in_turn() -> None:
    assert isinstance(build().teacher, teachers.InTurn)
    assert build().teacher.strides == (4, 8, 8, 16)
