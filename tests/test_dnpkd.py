"""DNP-KD: its parts against the published code's values, its losses against sums by hand, its switches, its shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor, nn

import kdlib as kd
from kdlib import losses
from kdlib.contract import Batch
from kdlib.layers.frequency_mask import FrequencyMask, filtered, full_l1
from kdlib.layers.subnet import SubNet
from kdlib.methods import preset
from kdlib.methods.dnpkd import DNPKD, CategoryPredictor, DNPKDConfig

REFERENCE = Path(__file__).parent / "reference" / "dnpkd.npz"
PUBLISHED = {
    "down.0.0": "block1.0",
    "down.0.3": "block1.3",
    "down.1.0": "block2.0",
    "down.1.3": "block2.3",
    "residual.1": "_residual_stack._layers.0._block.1",
    "residual.3": "_residual_stack._layers.0._block.3",
    "up.0": "upblock2",
    "up.1": "upblock1",
}


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    with np.load(REFERENCE) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def build(**overrides: Any) -> DNPKD:
    model = tiny.build("dnpkd", **{"weights": "random", **overrides})
    assert isinstance(model, DNPKD)
    return model


def roomy(categories: int = 3, size: tuple[int, int] = (64, 64), **overrides: Any) -> DNPKD:
    """A model for some categories whose masks differ."""
    model = build(**overrides).eval()
    torch.manual_seed(0)
    model.make_room(categories, [(size[0] // s, size[1] // s) for s in model.teacher.strides])
    assert model.masks is not None
    for mask in model.masks:
        nn.init.normal_(mask.logits, generator=torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    return model


def some(*categories: int, size: tuple[int, int] = (64, 64)) -> Batch:
    image = torch.rand(len(categories), 3, *size, generator=torch.Generator().manual_seed(0))
    return Batch(image=image, category=torch.tensor(categories))


def opposite(spectrum: Tensor) -> Tensor:
    """Every frequency's value at its negative, for full spectra [..., h, w]."""
    return spectrum.flip(-2, -1).roll((1, 1), (-2, -1))


def test_subnet_is_the_published_one(reference: dict[str, Tensor]) -> None:
    net = SubNet(8)
    state = {"gamma": reference["subnet/_residual_stack.gamma"]}
    for name in net.state_dict():
        if name != "gamma":
            part, _, leaf = name.rpartition(".")
            state[name] = reference[f"subnet/{PUBLISHED[part]}.{leaf}"]
    net.load_state_dict(state)
    torch.testing.assert_close(net(reference["subnet_in"]), reference["subnet_out"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spectrum", ["complex", "real_only"])
def test_masks_are_the_published_ones_on_half_the_spectrum(reference: dict[str, Tensor], spectrum: Any) -> None:
    for level in range(3):
        x, full = reference[f"x{level}"], reference[f"mask_logit{level}"].sigmoid()
        h, w = x.shape[-2:]
        mask = FrequencyMask(x.shape[1])
        mask.resize(2, h, w)
        mask.logits.data = ((full + opposite(full)) / 2)[..., : w // 2 + 1].logit()
        gains = mask(reference["class_index"], h, w)
        expected = reference[f"fafc_{spectrum}{level}"]
        torch.testing.assert_close(filtered(x, gains, spectrum), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(full_l1(gains, w), full[reference["class_index"]].sum((1, 2, 3)))


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 1), (2, 2), (4, 3)])
def test_half_a_spectrum_filters_like_a_whole_one(size: tuple[int, int]) -> None:
    h, w = size
    torch.manual_seed(0)
    x, full = torch.randn(2, 3, h, w), torch.rand(2, 3, h, w)
    spectrum = torch.fft.fft2(x)
    half = ((full + opposite(full)) / 2)[..., : w // 2 + 1]
    torch.testing.assert_close(filtered(x, half), torch.fft.ifft2(full * spectrum).real)
    torch.testing.assert_close(filtered(x, half, "real_only"), torch.fft.ifft2(full * spectrum.real).real)
    torch.testing.assert_close(full_l1(half, w), full.sum((1, 2, 3)))


def test_the_real_part_alone_keeps_half_the_features() -> None:
    x = torch.randn(1, 2, 6, 8, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(1, 2, 6, 5)
    even = filtered(x, ones, "real_only")
    torch.testing.assert_close(even, (x + opposite(x)) / 2)
    torch.testing.assert_close(filtered(even, ones, "real_only"), even)
    torch.testing.assert_close(filtered(x, ones), x)


def test_who_dominates_the_loss_at_the_start() -> None:
    with torch.device("meta"):
        teacher = kd.teachers.teacher("wide_resnet50_2", weights="random")
        shapes = [f.shape for f in teacher(torch.empty(1, 3, 256, 256))]
    assert [tuple(s[1:]) for s in shapes] == [(256, 64, 64), (512, 32, 32), (1024, 16, 16)]
    for batch_size, expected in ((8, 7.34), (16, 14.68)):
        l1 = sum(float(full_l1(torch.full((1, c, h, w // 2 + 1), 0.5), w)) for _, c, h, w in shapes)
        assert DNPKDConfig().sparsity_weight * batch_size * l1 == pytest.approx(expected, abs=0.005)
    for categories in (1, 15):
        light = roomy(categories, batch_size=8)
        assert light.masks is not None
        for mask in light.masks:
            nn.init.zeros_(mask.logits)  # type: ignore[arg-type]
        cells = sum(f[0].numel() for f in light.teach(some(0).image))
        assert light.loss(some(0, 0))["sparsity"].item() == pytest.approx(1e-6 * 8 * cells / 2, rel=1e-4)


def test_parameters() -> None:
    with torch.device("meta"):
        nets = [SubNet(c) for c in (256, 512, 1024)]
        masks = [FrequencyMask(c) for c in (256, 512, 1024)]
    # The published nets have biases before their norms, 5 * C / 2 of them, which the norms cancel.
    found = [sum(p.numel() for p in net.parameters()) / 1e6 for net in nets]
    assert [f + 2.5 * c / 1e6 for f, c in zip(found, (256, 512, 1024), strict=True)] == pytest.approx(
        [3.15, 12.59, 50.34], abs=0.005
    )
    for mask, size in zip(masks, (64, 32, 16), strict=True):
        mask.resize(15, size, size)
    cells = sum(mask.logits[..., 0].numel() * size for mask, size in zip(masks, (64, 32, 16), strict=True))
    assert cells / 1e6 == pytest.approx(27.53, abs=0.01)  # of the full spectrum
    predictor = CategoryPredictor(1024)
    predictor.resize(15, 16, 16)
    assert sum(p.numel() for p in predictor.parameters()) / 1e6 == pytest.approx(3.93, abs=0.005)


@torch.no_grad()
def test_terms_are_sums_by_hand() -> None:
    model = roomy(channel_weight=0.5, selection="oracle", sparsity_weight=1e-3, ssl_weight=0.1)
    batch = some(2, 0, 2)
    t = model.teach(batch.image)
    assert model.masks is not None and model.subnets is not None and model.predictor is not None
    l1, ssl, kept = 0.0, 0.0, []
    for f, mask, net in zip(t, model.masks, model.subnets, strict=True):
        gains = torch.stack([mask.logits[k].sigmoid() for k in batch.category])  # type: ignore[index]
        l1 += float(sum(full_l1(g[None], f.shape[-1]) for g in gains))
        masked = net(torch.fft.irfft2(torch.fft.rfft2(f) * gains, s=f.shape[-2:]))
        ssl += float((masked - net(f)).pow(2).mean())
        kept.append(masked)
    pairs = list(zip(t, model.student.decoder(model.student.bottleneck(kept)), strict=True))
    category = nn.functional.cross_entropy(model.predictor(t[-1]), batch.category)
    expected = {
        "sparsity": 1e-3 * 4 * l1 / 3,  # batch_size is 4, the batch has 3 images
        "category": float(category),
        "ssl": 0.1 * ssl,
        "cosine": float(sum(losses.global_cosine(a, b) for a, b in pairs)),
        "channel": 0.5 * float(sum(losses.channel_kl(a, b) for a, b in pairs)),
    }
    found = {name: float(value) for name, value in model.loss(batch).items()}
    assert found == pytest.approx({"total": sum(expected.values()), **expected}, rel=1e-3)


def test_only_what_is_switched_on_is_there() -> None:
    plain, rd = (
        build(fafc=False, subnet=False, neighbourhood=1, seed=2).eval(),
        tiny.build("rd", weights="random", neighbourhood=1, seed=2).eval(),
    )
    assert plain.masks is None and plain.subnets is None and plain.predictor is None
    batch = some(0, 0)
    assert set(plain.loss(batch)) == {"total", "cosine"}
    torch.testing.assert_close(plain.loss(batch)["total"], rd.loss(batch)["total"])
    assert set(build(fafc=False, ssl_weight=0.1).loss(batch)) == {"total", "cosine"}
    assert set(build(ssl_weight=0.1).loss(batch)) == {"total", "cosine", "sparsity", "category", "ssl"}
    assert set(build(ssl_weight=0).loss(batch)) == {"total", "cosine", "sparsity", "category"}
    local, whole = (build(loss=how).eval().loss(batch)["cosine"] for how in ("per_position", "global"))
    assert not torch.isclose(local, whole)
    with pytest.raises(ValueError, match=r"'guessed'.*predicted, oracle, random"):
        build(selection="guessed")


def test_the_second_branch_changes_nothing_but_its_term() -> None:
    one, two = roomy(ssl_weight=0, seed=1), roomy(ssl_weight=1e-5, seed=1)
    a, b = one.loss(some(0, 1, 2)), two.loss(some(0, 1, 2))
    for term in ("cosine", "sparsity", "category"):
        torch.testing.assert_close(a[term], b[term])


def test_masks_learn_only_for_the_categories_that_are_chosen() -> None:
    model = roomy(selection="oracle").train()
    model.loss(some(0, 2))["total"].backward()
    assert model.masks is not None
    for mask in model.masks:
        grad = mask.logits.grad
        assert isinstance(grad, Tensor) and grad[0].any() and grad[2].any() and not grad[1].any()


def test_the_predictor_learns_from_its_cross_entropy_alone() -> None:
    model = roomy(category_weight=0.0).train()
    model.loss(some(0, 1))["total"].backward()
    assert model.predictor is not None and model.predictor.weight.grad is not None
    assert not model.predictor.weight.grad.any()


def test_selection_of_masks() -> None:
    batch = some(0, 1)
    oracle, predicted = roomy(selection="oracle", seed=1), roomy(selection="predicted", seed=1)
    for model in (oracle, predicted):
        assert model.predictor is not None
        nn.init.zeros_(model.predictor.weight)
        model.predictor.bias.data = torch.tensor([0.0, 1.0, 0.0])
    with torch.no_grad():
        unknown, guessed = oracle.anomaly_map(batch.image), predicted.anomaly_map(batch.image)
        oracle.known_category = predicted.known_category = 1
        right = oracle.anomaly_map(batch.image)
        oracle.known_category = 2
        wrong = oracle.anomaly_map(batch.image)
        assert torch.equal(unknown, guessed) and torch.equal(right, guessed) and not torch.equal(wrong, right)
        assert torch.equal(predicted.anomaly_map(batch.image), guessed)
        drawn = roomy(selection="random", seed=1)
        torch.manual_seed(0)
        assert len({float(drawn.anomaly_map(batch.image[:1]).sum()) for _ in range(12)}) == 3


@pytest.mark.parametrize("poolings", [1, 2, 3])
@pytest.mark.parametrize("size", [(16, 16), (7, 9), (2, 2), (1, 1)])
def test_subnet_keeps_any_size(poolings: int, size: tuple[int, int]) -> None:
    x = torch.randn(2, 8, *size)
    y = SubNet(8, poolings)(x)
    assert y.shape == x.shape and y.isfinite().all()


@pytest.mark.parametrize("kind", ["pooled", "flat"])
def test_other_sizes_than_the_masks(kind: str) -> None:
    model = roomy(2, predictor=kind)
    for size in ((64, 64), (96, 64), (32, 160)):
        assert model.anomaly_map(some(0, size=size).image).shape == (1, 1, *size)
    with pytest.raises(ValueError, match=r"72 x 64.*multiples of 32"):
        model.anomaly_map(some(0, size=(72, 64)).image)


def test_masks_are_stretched_over_frequency() -> None:
    mask = FrequencyMask(1)
    mask.resize(1, 8, 8)
    frequency = torch.fft.fftfreq(8).abs()[:, None] + torch.fft.rfftfreq(8)
    mask.logits.data = frequency[None, None]
    stretched = mask(torch.zeros(1, dtype=torch.long), 16, 32)[0, 0].logit()
    assert stretched.shape == (16, 17)
    expected = torch.fft.fftfreq(16).abs()[:, None] + torch.fft.rfftfreq(32)
    assert (stretched - expected).abs().max() <= 0.125 + 1e-5
    mask.resize(1, 8, 8)
    assert mask.logits.any(), "a mask that fits keeps what it learned"
    mask.resize(2, 8, 8)
    assert mask.logits.shape == (2, 1, 8, 5) and not mask.logits.any()


@pytest.mark.parametrize("overrides", [{}, {"predictor": "flat"}, {"fafc": False}, {"subnet": False}])
def test_several_categories_are_trained_saved_and_loaded(overrides: dict[str, Any], tmp_path: Path) -> None:
    data = tiny.data(tmp_path / "data", "bottle", "cable", train=4, size=(64, 96))
    model = build(**overrides)
    tiny.fit(model, data.train)
    if model.masks is not None and model.predictor is not None:
        assert model.masks[0].logits.shape[::2] == (2, 16) and model.masks[2].logits.shape[2:] == (4, 4)
        assert model.predictor.weight.shape[2:] == ((4, 6) if "predictor" in overrides else (1, 1))
    loaded = kd.load(kd.save(kd.calibrate(model, data.calib, device="cpu", precision="fp32"), tmp_path / "saved"))
    assert tiny.equal(loaded.model, model)


class KilledError(Exception):
    """Stands for a kill."""


def test_killed_and_resumed(tmp_path: Path) -> None:
    images = tiny.data(tmp_path / "data", "bottle", "cable", train=4).train
    whole, killed, again = (build(selection="oracle") for _ in range(3))
    expected = tiny.fit(whole, images)

    def kill(history: kd.History) -> None:
        if len(history.rows) == 3:
            raise KilledError

    with pytest.raises(KilledError):
        tiny.fit(killed, images, state=tmp_path / "state", save_every=0, on_step=kill)
    steps: list[int] = []
    history = tiny.fit(again, images, state=tmp_path / "state", on_step=lambda h: steps.append(len(h.rows)))
    assert tiny.equal(again, whole) and history.rows == expected.rows and steps == [3, 4]
    tiny.fit(more := build(selection="oracle"), images, state=tmp_path / "state")
    assert tiny.equal(more, whole)


@pytest.mark.parametrize("backbone", ["resnet18", "convnext_atto"])
def test_other_teachers_in_half_precision(backbone: str) -> None:
    model = roomy(backbone=backbone, ssl_weight=1e-5).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cpu", torch.bfloat16):
        half = model.loss(some(0, 1))
        half["total"].backward()
    exact = model.loss(some(0, 1))
    for term, value in half.items():
        torch.testing.assert_close(value.float(), exact[term], rtol=0.05, atol=1e-3)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.student_parameters())


def test_the_predictor_learns_the_categories(tmp_path: Path) -> None:
    images = tiny.data(tmp_path / "data", "bottle", "cable", train=4).train
    history = tiny.fit(build(steps=12), images)
    assert sum(history.losses("category")[-3:]) < sum(history.losses("category")[:3])


def test_defaults_are_those_of_the_official_code() -> None:
    config = preset("dnpkd/mvtec")
    assert isinstance(config, DNPKDConfig)
    assert (config.lr, config.betas, config.batch_size, config.epochs) == (0.005, (0.5, 0.999), 8, 50)
    assert (config.cosine_weight, config.sparsity_weight, config.category_weight, config.ssl_weight) == (
        1,
        1e-6,
        1,
        1e-5,
    )
    assert (config.backbone, config.spectrum, config.poolings) == ("wide_resnet50_2", "complex", 2)


def test_room_is_made_although_an_old_graph_is_alive(tmp_path: Path) -> None:
    model = tiny.build("dnpkd")
    held = [p.clone() for p in model.student_parameters()]  # holds the graph of the parameters as they were
    tiny.fit(model, tiny.normal(tmp_path))
    assert held and all(p.grad is None or p.grad.shape == p.shape for p in model.student_parameters())
    assert all(torch.isfinite(p).all() for p in model.student_parameters())
