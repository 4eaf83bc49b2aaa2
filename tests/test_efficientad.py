"""EfficientAD: networks, losses, calibration and maps as the code that most use computes them, and its switches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

import kdlib as kd
from kdlib import losses, teachers
from kdlib.contract import Batch
from kdlib.layers.autoencoder import AutoEncoder, sizes
from kdlib.layers.standardise import Standardise
from kdlib.methods import preset
from kdlib.methods.efficientad import EfficientAD, EfficientADConfig
from kdlib.synthesis.shifts import recoloured

pytestmark = pytest.mark.filterwarnings("ignore:.*RANDOM:UserWarning")
STORED = np.load(Path(__file__).parent / "reference" / "efficientad.npz")


def stored(name: str) -> Tensor:
    return torch.from_numpy(STORED[name])


def close(found: Tensor, name: str) -> None:
    """Within a hundred thousandth of the largest stored value."""
    expected = stored(name)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max(), name


def published(prefix: str) -> list[Tensor]:
    return [stored(name) for name in STORED.files if name.startswith(prefix)]


def fill(net: nn.Module, seed: int) -> None:
    """Random numbers for a whole network, as the reference's note tells them."""
    for i, (_, tensor) in enumerate(net.state_dict().items()):
        r = np.random.RandomState(seed + i).standard_normal(tuple(tensor.shape))
        r = r * np.sqrt(2 / np.prod(tensor.shape[1:])) if tensor.ndim >= 2 else 0.1 * r
        tensor.copy_(torch.from_numpy(r.astype(np.float32)))


def formula_image(size: int) -> Tensor:
    i, j = np.mgrid[:size, :size].astype(np.float64)
    rows = [
        np.sin(0.05 * i * (c + 1)) + np.cos(0.07 * j + 0.5 * c) + 0.3 * np.sin(0.9 * i) * np.cos(1.1 * j)
        for c in range(3)
    ]
    return torch.from_numpy(np.stack(rows)[None].astype(np.float32))


class Narrow(teachers.PDN):
    """PDN with the widths of the stored one."""

    def __init__(self, prefix: str, padding: bool) -> None:
        super().__init__("small" if prefix == "pdn_s" else "medium", 0.01, 4, padding)
        tensors = published(f"{prefix}/")
        for conv, weight, bias in zip(self.convolutions(), tensors[::2], tensors[1::2], strict=True):
            conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)

    def convolutions(self) -> list[nn.Conv2d]:
        return [layer for layer in self if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize("prefix", ["pdn_s", "pdn_m"])
def test_narrow_networks(prefix: str) -> None:
    with torch.no_grad():
        close(Narrow(prefix, padding=False)(stored("image")), f"{prefix}_out")
        close(Narrow(prefix, padding=True)(stored("image")), f"{prefix}_out_padded")


@pytest.mark.parametrize(("architecture", "seed", "prefix"), [("small", 7000, "pdn_s"), ("medium", 7100, "pdn_m")])
def test_whole_networks(architecture: Any, seed: int, prefix: str) -> None:
    net = teachers.PDN(architecture)
    fill(net, seed)
    with torch.no_grad():
        close(net(formula_image(64))[0, ::32], f"{prefix}_full_sub")
    assert sum(p.numel() for p in net.parameters()) == int(stored(f"{prefix}_full_params"))


def test_autoencoders() -> None:
    narrow = AutoEncoder(4, 0.1).eval()
    tensors = iter(published("ae/"))
    for layer in narrow.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight, layer.bias = nn.Parameter(next(tensors)), nn.Parameter(next(tensors))
    whole = AutoEncoder(384).eval()
    fill(whole, 7200)
    with torch.no_grad():
        close(narrow(formula_image(256), (56, 56)), "ae_out_small")
        found = whole(formula_image(256), (56, 56))
    assert tuple(found.shape) == tuple(int(n) for n in stored("ae_full_shape"))
    close(found[0, ::48, ::8, ::8], "ae_full_sub")
    close(found[0].mean((1, 2)), "ae_full_channel_mean")
    assert sum(p.numel() for p in whole.parameters()) == int(stored("ae_full_params"))


def test_sizes_of_the_decoder() -> None:
    assert sizes(256) == (3, 8, 15, 32, 63, 127) and sizes(64) == (1, 2, 3, 8, 15, 31)


class Arrays(EfficientAD):
    """The method, on stored outputs of its networks; an "image" is the number of one."""

    def __init__(self, **options: Any) -> None:
        nn.Module.__init__(self)
        self.config = EfficientADConfig(**options)
        self.teacher: Any = nn.Identity()
        self.channels, self.rim = 4, 4
        self.scale = Standardise([4])
        self.register_buffer("quantiles", torch.tensor([[0.0, 1.0]] * 2))

    def teach(self, x: Tensor, teacher: Any = None) -> list[Tensor]:
        return [stored("teacher_raw")[x[:, 0, 0, 0].long()]]

    def imitated(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        outputs = torch.cat([stored("student"), stored("student_penalty")])[x[:, 0, 0, 0].long()]
        return outputs[:, :4], outputs[:, 4:]

    def rebuilt(self, x: Tensor, t: Tensor) -> Tensor:
        return stored("autoencoder")[x[:, 0, 0, 0].long()]


def test_the_rim_is_zero_in_published_maps_and_continued_in_residuals() -> None:
    model, x = Arrays(), torch.zeros(1, 3, 1, 1)
    for amap in model.level_maps(x):
        assert not amap[..., :4, :].any() and amap[..., 4:-4, 4:-4].any()
    for r in model.residuals(x):
        assert torch.equal(r[..., 0, 4:-4], r[..., 4, 4:-4]) and r[..., 0, 4:-4].any()


class Set:
    """Training images by number, and those held out."""

    categories = ("a",)

    def __init__(self, numbers: Tensor, held_out: Tensor) -> None:
        self.numbers, self._held_out = numbers, held_out

    @property
    def held_out(self) -> Set:
        return Set(self._held_out, self._held_out)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Any:
        return (batch(n[None]) for n in self.numbers)


def batch(numbers: Tensor, **more: Any) -> Batch:
    image = numbers.float().view(-1, 1, 1, 1).expand(-1, 3, 50, 37)
    return Batch(image=image, category=torch.zeros(len(image), dtype=torch.long), **more)


def calibrated(**options: Any) -> Arrays:
    model = Arrays(**options)
    model.student_parameters = lambda: [nn.Parameter(torch.zeros(1))]  # type: ignore[method-assign]
    list(model.phases(Set(stored("train_index"), stored("validation_index"))))  # type: ignore[arg-type]
    return model


def test_statistics_quantiles_and_maps() -> None:
    model = calibrated()
    close(model.scale.mean_0, "teacher_mean")
    close(model.scale.std_0, "teacher_std")
    names = (("q_st_start", "q_st_end"), ("q_ae_start", "q_ae_end"))
    for row, pair in zip(model.quantiles, names, strict=True):
        for value, name in zip(row, pair, strict=True):
            close(value.to(stored(name).dtype), name)
    x = batch(stored("test_index")).image
    raw = model.distances(x)
    close(raw[0], "map_st_raw")
    close(raw[1], "map_ae_raw")
    inside = [amap[..., 4:-4, 4:-4] for amap in model.level_maps(x)]
    close(2 * inside[0], "map_st")
    close(2 * inside[1], "map_ae")
    close(inside[0] + inside[1], "map_combined")
    close(model.anomaly_map(x), "map_combined_resized_50x37")


def test_losses() -> None:
    model = calibrated()
    named = model.loss(batch(torch.tensor([0]), auxiliary=batch(torch.tensor([6])).image))
    for name, reference in (("hard", "hard"), ("penalty", "penalty"), ("autoencoder", "ae"), ("imitation", "stae")):
        close(named[name], f"loss_{reference}")
    assert float(named["total"]) == pytest.approx(sum(float(v) for k, v in named.items() if k != "total"))
    three = torch.tensor([0, 1, 2])
    close(calibrated(over="batch").loss(batch(three))["hard"], "loss_hard_batch3")
    alone = [float(model.loss(batch(n[None]))["hard"]) for n in three]
    assert float(model.loss(batch(three))["hard"]) == pytest.approx(np.mean(alone), rel=1e-5)
    t, (s, _) = model.taught(batch(three[:1]).image), model.imitated(batch(three[:1]).image, torch.empty(0))
    threshold = torch.quantile((t - s).square().flatten(), 0.999)
    close(threshold, "hard_threshold")


def test_hard_features_by_hand() -> None:
    t = torch.arange(12.0).view(1, 3, 2, 2)
    s = torch.zeros_like(t)
    assert float(losses.hard_features(t, s, 0)) == pytest.approx(float(t.square().mean()))
    assert float(losses.hard_features(t, s, 0.8)) == pytest.approx((9**2 + 10**2 + 11**2) / 3)
    both = torch.cat([t, 2 * t]), torch.zeros(2, 3, 2, 2)
    assert float(losses.hard_features(*both, 0.9)) == pytest.approx((10**2 + 11**2) * (1 + 4) / 4)
    assert float(losses.hard_features(*both, 0.9, over="batch")) == pytest.approx((18**2 + 20**2 + 22**2) / 3)


@pytest.fixture
def model() -> EfficientAD:
    built = tiny.build("efficientad")
    assert isinstance(built, EfficientAD)
    return built.eval()


def test_defaults_are_the_papers() -> None:
    config = preset("efficientad/mvtec")
    assert isinstance(config, EfficientADConfig)
    assert (config.backbone, config.steps, config.batch_size, config.lr) == ("pdn_small", 70_000, 1, 1e-4)
    assert (config.hard, config.quantiles, config.blur, config.penalty) == (0.999, (0.9, 0.995), 0, 1)
    with torch.device("meta"):
        whole = kd.build("efficientad/mvtec", weights="random")
        shape = whole.pairs(torch.empty(1, 3, 256, 256))[0][1].shape
    assert shape == (1, 384, 56, 56)
    assert sum(p.numel() for p in whole.student_parameters()) / 1e6 == pytest.approx(4.27 + 1.10, abs=0.01)


def test_any_multiple_of_32(model: EfficientAD) -> None:
    for height, width in ((64, 64), (96, 160), (256, 64)):
        assert model.anomaly_map(torch.rand(1, 3, height, width)).shape == (1, 1, height, width)
    with pytest.raises(ValueError, match=r"72 x 64 px.*multiples of 32"):
        model.anomaly_map(torch.rand(1, 3, 72, 64))
    with pytest.raises(ValueError, match=r"32 x 32 px.*patches of 33"):
        model.anomaly_map(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize("strides", [(8,), (16,)])
def test_one_level_of_a_timm_network_teaches_too(strides: tuple[int, ...]) -> None:
    model = tiny.build("efficientad", backbone="resnet18", weights="random", strides=strides).eval()
    (t, s), (a, s2) = model.pairs(torch.rand(1, 3, 64, 96))
    assert t.shape == s.shape == a.shape == s2.shape and t.shape[-2:] == (64 // strides[0], 96 // strides[0])
    assert model.anomaly_map(torch.rand(1, 3, 64, 96)).shape == (1, 1, 64, 96)


def test_the_penalty_is_on_images_of_something_else(model: EfficientAD) -> None:
    x, other = torch.rand(2, 2, 3, 64, 64)
    given = Batch(image=x, category=torch.zeros(2, dtype=torch.long), auxiliary=other)
    s, _ = model.imitated(other, model.taught(x))
    torch.testing.assert_close(model.loss(given)["penalty"], s.square().mean())
    without = tiny.build("efficientad", penalty=0.0)
    assert "penalty" not in without.loss(given)


def test_the_view_changes_one_thing_by_a_share() -> None:
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.2
    views = [recoloured(image, torch.Generator().manual_seed(seed), 0.2)["recoloured"] for seed in range(30)]
    ratios = torch.stack([view / image for view in views])
    brightness = [r for r in ratios if r.std() < 1e-3]
    assert 3 < len(brightness) < 20 and all(0.8 <= float(r.mean()) <= 1.2 for r in brightness)
    assert torch.equal(recoloured(image, torch.Generator(), 0.0)["recoloured"], image)


def test_detaching_keeps_the_imitation_from_the_autoencoder(model: EfficientAD) -> None:
    x = torch.rand(1, 3, 64, 64)
    given = Batch(image=x, category=torch.zeros(1, dtype=torch.long))
    for detach in (False, True):
        own = tiny.build("efficientad", detach=detach, penalty=0.0).eval()
        own.loss(given)["imitation"].backward()
        assert (next(own.autoencoder.parameters()).grad is None) == detach


def test_mix_and_quantiles(model: EfficientAD) -> None:
    x = torch.rand(1, 3, 64, 64)
    model.quantiles.copy_(torch.tensor([[0.5, 1.5], [0.0, 2.0]]))
    student, autoencoder = model.distances(x)
    inside = [F.pad(m, (-4,) * 4) for m in model.level_maps(x)]
    torch.testing.assert_close(inside[0], 0.5 * 0.1 * (student - 0.5))
    torch.testing.assert_close(inside[1], 0.5 * 0.1 * autoencoder / 2)
    outer, edge = model.level_maps(x)[0][..., 0, 4:-4], model.level_maps(x)[0][..., 4, 4:-4]
    torch.testing.assert_close(outer, edge)
    for mix, kept in ((0.0, 0), (1.0, 1)):  # what has no share would be a map of zeros, which nothing can be divided by
        alone = replace(model.config, mix=mix)
        model.config, both = alone, model.config
        (level,), (residual,) = model.level_maps(x), model.residuals(x)
        model.config = both
        torch.testing.assert_close(level, 2 * model.level_maps(x)[kept])
        torch.testing.assert_close(residual, model.residuals(x)[kept])
    published = tiny.build("efficientad", blur=0.0).eval()
    assert not published.level_maps(x)[0][..., 0, :].any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"strides": (4, 8)},
        {"fusion": "product"},
        {"hard": 1.0},
        {"quantiles": (0.9, 0.5)},
        {"mix": 2.0},
        {"dropout": 1.0},
        {"width": 0.0},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"efficientad: .*expected"):
        EfficientADConfig(**wrong)


def test_published_weights_load_from_a_file(tmp_path: Path) -> None:
    net = teachers.PDN()
    torch.save(net.state_dict(), tmp_path / "teacher_small.pth")
    renamed = {f"conv{i // 2 + 1}.{k.split('.')[1]}": t for i, (k, t) in enumerate(net.state_dict().items())}
    save_file(renamed, tmp_path / "other_names.safetensors")
    x = torch.rand(1, 3, 64, 64)
    for file in ("teacher_small.pth", "other_names.safetensors"):
        teacher = kd.teachers.teacher("pdn_small", (4,), tmp_path / file)
        torch.testing.assert_close(teacher(x)[0], net(teachers.normalise()(x)))
        assert str(teacher.weights) == f"{file} (file)"
    with pytest.raises(ValueError, match="does not fit 'pdn_medium'"):
        kd.teachers.teacher("pdn_medium", (4,), tmp_path / "teacher_small.pth")
    with pytest.raises(ValueError, match=r"unknown network 'pdn_tiny'.*pdn_small_quarter"):
        kd.teachers.teacher("pdn_tiny", (4,))
    with pytest.raises(ValueError, match=r"one level, at stride 4; got strides \(4, 8\)"):
        kd.teachers.teacher("pdn_small", (4, 8))
