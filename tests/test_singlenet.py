"""SingleNet: sampling, student, filter and maps against the published code's values, the filter's mistake, switches."""

from __future__ import annotations

from typing import Any

import numpy as np
import published
import pytest
import tiny
import torch
from published import close
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from kdlib import maps
from kdlib.layers.fast_fourier import FastFourierBlock, Paths
from kdlib.layers.low_pass import butterworth, low_pass
from kdlib.methods import preset
from kdlib.methods.singlenet import Restorer, SingleNet, SingleNetConfig, sampled

SMALL = {"backbone": "resnet18", "weights": "random"}
PUBLISHED = {
    "ffc.convg2g.conv1": "whole_whole.reduce",
    "ffc.convg2g.fu.conv_layer": "whole_whole.unit.net.0",
    "ffc.convg2g.fu.bn": "whole_whole.unit.net.1",
    "ffc.convg2g.conv2": "whole_whole.enlarge",
    "ffc.convl2l": "local_local",
    "ffc.convl2g": "local_whole",
    "ffc.convg2l": "whole_local",
    "bn_l": "end_local.0",
    "bn_g": "end_whole.0",
}


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    return published.arrays("singlenet")


@pytest.fixture
def student(reference: dict[str, Tensor]) -> Restorer:
    """The published student of 8 channels."""
    net = Restorer(8, SingleNetConfig(), signed=False)
    stored = {name.removeprefix("student/"): t for name, t in reference.items() if name.startswith("student/")}
    net.load_state_dict({renamed(name): tensor for name, tensor in stored.items()})
    return net.eval()


def renamed(name: str) -> str:
    """Our name of a tensor of the published student."""
    _, block, part = name.split(".", 2)
    for theirs, ours in PUBLISHED.items():
        if part.startswith(f"{theirs}."):
            return f"blocks.{block}.{ours}.{part.removeprefix(f'{theirs}.')}"
    raise AssertionError(name)


def build(**overrides: Any) -> SingleNet:
    model = tiny.build("singlenet/mvtec", **SMALL | overrides)
    assert isinstance(model, SingleNet)
    return model.eval()


def test_the_student_is_the_published_one(reference: dict[str, Tensor], student: Restorer) -> None:
    samples = sampled(reference["teacher"], 4)
    assert torch.equal(samples, reference["degraded"])
    first, second, _ = student.blocks
    local, whole = first(samples, None)
    close(local, reference["block0_local"])
    close(whole, reference["block0_global"])
    spectral = second.whole_whole
    reduced = spectral.reduce(whole)
    close(reduced, reference["block1_spectral_conv1"])
    close(spectral.unit(reduced), reference["block1_fourier_unit"])
    close(spectral(whole), reference["block1_spectral_out"])
    local, whole = second(local, whole)
    close(local, reference["block1_local"])
    close(whole, reference["block1_global"])
    close(student(samples), reference["student_eval"])
    close(student.train()(samples), reference["student_train"])


def test_at_its_real_width(reference: dict[str, Tensor]) -> None:
    net = Restorer(128, SingleNetConfig(), signed=False).eval()
    assert sum(p.numel() for p in net.parameters()) == reference["params_full"] == 621_504
    blocks = [sum(p.numel() for p in block.parameters()) for block in net.blocks]
    assert blocks == reference["params_full_blocks"].tolist() == [147_712, 211_392, 262_400]
    shapes = {name: net.state_dict()[renamed(name)].shape for name in published.names("singlenet")}
    weights = {renamed(name): tensor for name, tensor in published.filled(shapes, 4500).items()}
    assert not net.load_state_dict(weights, strict=False).unexpected_keys
    drawn = np.random.RandomState(9).standard_normal((1, 128, 28, 28))
    features = torch.from_numpy(np.maximum(drawn, 0).astype(np.float32))
    close(net(sampled(features, 4))[0, ::16, ::4, ::4], reference["full_sub"])


def test_the_loss_is_the_published_one_but_for_the_batch(reference: dict[str, Tensor], student: Restorer) -> None:
    t = reference["teacher"]
    ours = build().distance(t, student(sampled(t, 4))).mean()
    close(2 * ours, reference["loss_eval"])


def test_maps_are_the_published_ones(reference: dict[str, Tensor], student: Restorer) -> None:
    model, t = build(), reference["teacher"]
    s = student(sampled(t, 4))
    plain = model.distance(t, s)[:, None] / 28**2
    close(maps.fuse([plain], (56, 56), blur=4 * 256 / 56)[:, 0], reference["map_56_blur_2d"])
    smooth = [low_pass(f[:1], 10 / 28, "magnitude") for f in (t, s)]
    filtered = maps.fuse([model.distance(*smooth)[:, None] / 28**2], (56, 56), blur=0)[0, 0]
    close(filtered, reference["map_filtered_56_no_blur"])
    rows = torch.from_numpy(gaussian_filter1d(filtered.detach().numpy(), 4, axis=1))
    close(rows, reference["map_filtered_56_blur_rowwise"])


def test_the_filter_is_the_published_one_with_magnitudes(reference: dict[str, Tensor]) -> None:
    close(low_pass(reference["teacher"][:1], 10 / 28, "magnitude"), reference["filtered_teacher"])
    close(low_pass(reference["signed"], 10 / 28, "magnitude"), reference["filtered_signed"])
    close(low_pass(reference["signed"], 10 / 28, "magnitude", passes=1), reference["filtered_signed_one_pass"])
    close(low_pass(reference["odd"], 4 / 9, "magnitude"), reference["filtered_odd_cutoff4"])


def test_magnitudes_are_another_filter(reference: dict[str, Tensor]) -> None:
    """Taken after each of two passes they are not even the magnitude of the whole filter's result."""
    for name, apart in (("teacher", 0.11), ("signed", 0.64)):
        real, coded = (low_pass(reference[name][:1], 10 / 28, kind) for kind in ("real", "magnitude"))
        assert float((real.abs() - coded).abs().max()) == pytest.approx(apart, abs=0.005)
        assert float(real.min()) < -0.1 and float(coded.min()) >= 0
    assert low_pass(reference["signed"], 0.1, "none") is reference["signed"]


def test_gains_of_the_filter() -> None:
    gains = butterworth(28, 28, 10 / 28)
    by_hand = {0: 1.0, 5: 16 / 17, 10: 0.5, 14: 1 / (1 + 1.4**4)}
    for r, gain in by_hand.items():
        assert float(gains[0, r]) == pytest.approx(gain, rel=1e-5) and float(gains[-r % 28, 0]) == pytest.approx(gain)
    wide = butterworth(8, 16, 0.25)
    assert float(wide[0, 0]) == 1 and float(wide[2, 0]) == float(wide[0, 4]) == pytest.approx(0.5)


def test_two_real_passes_are_one_filter_of_the_squared_gain() -> None:
    x = torch.randn(1, 2, 8, 12)
    squared = torch.fft.irfft2(torch.fft.rfft2(x) * butterworth(8, 12, 0.3) ** 2, s=(8, 12))
    torch.testing.assert_close(low_pass(x, 0.3), squared, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("keep", [1, 2, 4, 8])
def test_sampling_and_doubling(keep: int) -> None:
    """Of 28 x 28 positions one in 16 is kept with `keep=4`: rows and columns 3, 7, ..., 27."""
    grid = torch.arange(28 * 28.0).view(1, 1, 28, 28)
    kept = sampled(grid, 4)[0, 0]
    assert kept[:, 0].div(28).floor().tolist() == list(range(3, 28, 4)) and kept.numel() / grid.numel() == 1 / 16
    model = build(keep=keep)
    ((t, s),) = model.pairs(torch.rand(2, 3, 64, 128))
    assert t.shape == s.shape == (2, 128, 8, 16)
    assert len(model.students[0].blocks) == 1 + keep.bit_length() - 1


def test_the_student_sees_samples_only() -> None:
    """What lies between the samples changes nothing that the student says."""
    model = build()
    t = torch.rand(1, 128, 8, 8)
    changed = t.clone()
    changed[..., 0, 0] += 5
    (_, before), (_, after) = (model.pairs(torch.rand(1, 3, 64, 64), [f])[0] for f in (t, changed))
    assert torch.equal(before, after)
    changed[..., 3, 3] += 5
    assert not torch.equal(before, model.pairs(torch.rand(1, 3, 64, 64), [changed])[0][1])


def test_only_whole_channels_see_beyond_their_surroundings() -> None:
    """A sample far away changes an output of the spectral path; without that path, none."""
    for ratio, everywhere in ((0.5, True), (0.0, False)):
        torch.manual_seed(0)
        net = Restorer(8, SingleNetConfig(ratio=ratio), signed=True).eval()
        samples = torch.rand(1, 8, 16, 16)
        changed = samples.clone()
        changed[..., 0, 0] += 1
        with torch.no_grad():
            difference = (net(samples) - net(changed)).abs().amax(1)[0]
        assert bool(difference[32:, 32:].max() > 0) == everywhere and difference[:4, :4].max() > 0


def test_signed_teachers_get_a_signed_student() -> None:
    signed = build(backbone="tf_efficientnet_lite0").eval()
    t, s = signed.pairs(torch.rand(2, 3, 64, 64))[0]
    assert t.min() < 0 and s.min() < -0.1 * s.max()
    _, s = build().pairs(torch.rand(2, 3, 64, 64))[0]
    assert s.min() >= -0.01 * 100 * s.max()


def test_switches_reach_student_and_filter() -> None:
    x = torch.rand(1, 3, 64, 64)
    model = build(width=32, strides=(8, 16))
    assert [s.shape[1] for _, s in model.pairs(torch.rand(1, 3, 64, 64))] == [128, 256]
    assert model.students[1].blocks[1].local_local.weight.shape == (16, 16, 4, 4)
    assert model.students[0].blocks[0].end_local[0].momentum == 0.01
    kinds = {kind: build(low_pass=kind, seed=1).anomaly_map(x) for kind in ("real", "magnitude", "none")}
    assert not any(torch.allclose(kinds["real"], kinds[other], rtol=1e-3) for other in ("magnitude", "none"))
    torch.testing.assert_close(build(seed=1).anomaly_map(x), kinds["magnitude"])
    signed = {kind: build(low_pass=kind, seed=1, backbone="tf_efficientnet_lite0") for kind in ("auto", "real")}
    torch.testing.assert_close(signed["auto"].anomaly_map(x), signed["real"].anomaly_map(x))
    model = build(low_pass="real", seed=1)
    (residual,) = model.residuals(x)
    torch.testing.assert_close(residual.square().sum(1, keepdim=True) / 2, model.level_maps(x)[0])


def test_defaults_are_those_of_the_official_code() -> None:
    config = preset("singlenet/mvtec")
    assert isinstance(config, SingleNetConfig)
    assert (config.backbone, config.strides, config.keep, config.ratio) == ("resnet18", (8,), 4, 0.5)
    assert (config.lr, config.betas, config.batch_size, config.epochs) == (0.004, (0.5, 0.999), 8, 50)
    assert (config.momentum, config.low_pass, config.cutoff * 28) == (0.01, "auto", 10)


def test_settings_that_make_no_sense() -> None:
    for keep in (0, 3, 6):
        with pytest.raises(ValueError, match=f"keep is {keep}; expected a power of 2"):
            SingleNetConfig(keep=keep)
    for wrong in ({"ratio": 1.0}, {"momentum": 0.0}, {"cutoff": 0.0}, {"width": 0}):
        with pytest.raises(ValueError, match="expected a ratio in"):
            SingleNetConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"48 x 64 px.*every 4th.*multiples of 32"):
        build().anomaly_map(torch.rand(1, 3, 48, 64))
    with pytest.raises(ValueError, match="without doubling"):
        FastFourierBlock(Paths(4, 4), Paths(4, 4), doubling=False)
    assert Paths.of(8, 0.5) == (4, 4) and Paths.of(3, 0.5) == (3, 0)
