"""SNL: what each structural loss sees, its switches, its two bases, and batches that mix products."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from kdlib import losses
from kdlib.contract import Batch
from kdlib.methods import preset
from kdlib.methods.rd import RD
from kdlib.methods.snl import SNL, SNLConfig
from kdlib.methods.stpm import STPM

OFF = {"spatial": 0.0, "channel": 0.0, "intra": 0.0, "inter": 0.0, "neck_weight": 0.0}


def build(**overrides: Any) -> SNL:
    model = tiny.build("snl", **overrides)
    assert isinstance(model, SNL)
    return model.eval()


def a_batch(count: int = 3) -> Batch:
    return Batch(image=torch.rand(count, 3, 64, 64), category=torch.zeros(count, dtype=torch.long))


def rotated(features: Tensor) -> Tensor:
    """Channels mixed by a random rotation."""
    rotation = torch.linalg.qr(torch.randn(features.shape[1], features.shape[1])).Q
    return torch.einsum("dc,bchw->bdhw", rotation, features)


def test_defaults() -> None:
    config = preset("snl/mvtec")
    assert isinstance(config, SNLConfig)
    assert (config.backbone, config.lr, config.betas) == ("wide_resnet50_2", 0.005, (0.5, 0.999))
    assert (config.batch_size, config.epochs, config.decay, config.fusion) == (16, 100, 0.8, "sum")
    assert (config.spatial, config.channel, config.intra, config.inter, config.neck_weight) == (1, 1, 1, 1, 0.1)
    assert config.neck == "cram" and config.centres == 128 and config.rho == "residual" and not config.balanced


def test_who_sees_what() -> None:
    """Affinities ignore a rotation of the channels, the channel loss ignores constants."""
    t = torch.randn(3, 64, 8, 8)
    turned, raised = rotated(t), t + 3 * torch.randn(1, 64, 1, 1)
    for affinity in (losses.intra_affinity, losses.inter_affinity):
        assert affinity(t, turned).abs() < 1e-6 < affinity(t, raised)
    assert losses.per_position_cosine(t, turned) == pytest.approx(1, abs=0.1)
    assert losses.channel_kl(t, turned) > 0.1
    assert losses.channel_kl(t, raised).abs() < 1e-6 < losses.per_position_cosine(t, raised)


@pytest.mark.parametrize("channels", [3, 40])  # fewer and more than positions: two ways to compute one number
def test_affinities_are_those_of_the_definition(channels: int) -> None:
    t, s = torch.randn(3, channels, 4, 5), torch.randn(3, channels, 4, 5)
    unit = [(f / f.norm(dim=1, keepdim=True)).flatten(2) for f in (t, s)]
    for affinity, before in ((losses.intra_affinity, 0), (losses.inter_affinity, 1)):
        rows = []
        for b in range(3):
            a_t, a_s = (u[b].T @ u[b - before] for u in unit)
            rows.append((a_t - a_s).pow(2).mean())
        torch.testing.assert_close(affinity(t, s), torch.stack(rows).mean(), rtol=1e-4, atol=1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(affinity(t, s), affinity(t.clone(), s))
            inside = affinity(t, s)
        assert torch.equal(inside, affinity(t, s))


def test_the_total_is_the_weighted_sum_of_its_terms() -> None:
    weights = {"spatial": 2.0, "channel": 0.5, "intra": 3.0, "inter": 4.0, "neck_weight": 0.7}
    batch = a_batch()
    named = build(**weights).loss(batch)
    weights["compact"] = weights.pop("neck_weight")
    assert named.keys() == {"total", *weights}
    torch.testing.assert_close(named["total"], sum(w * named[name] for name, w in weights.items()))


@pytest.mark.parametrize("base", ["rd", "stpm"])
def test_each_term_alone_is_its_loss_over_all_levels(base: str) -> None:
    batch = a_batch()
    expected: dict[str, Any] = {
        "spatial": losses.per_position_cosine,
        "channel": losses.channel_kl,
        "intra": losses.intra_affinity,
        "inter": losses.inter_affinity,
    }
    for term, distance in expected.items():
        model = build(**OFF | {term: 1.0}, base=base, neck="none")
        named = model.loss(batch)
        assert named.keys() == {"total", term}
        torch.testing.assert_close(named["total"], losses.over_levels(model.pairs(batch.image), distance)["total"])


def test_switches_reach_their_losses() -> None:
    batch = a_batch()
    model = build(**OFF | {"channel": 1.0}, temperature=0.5, reduction="vandgnl", neck="none")
    pairs = model.pairs(batch.image)
    expected = sum(losses.channel_kl(t, s, temperature=0.5, reduction="vandgnl") for t, s in pairs)
    torch.testing.assert_close(model.loss(batch)["total"], expected)
    model = build(**OFF | {"spatial": 1.0}, loss="global", neck="none")
    expected = sum(losses.global_cosine(t, s) for t, s in model.pairs(batch.image))
    torch.testing.assert_close(model.loss(batch)["total"], expected)
    model = build(**OFF | {"intra": 1.0}, grid=2, neck="none")
    expected = sum(losses.intra_affinity(t, s, 2) for t, s in model.pairs(batch.image))
    torch.testing.assert_close(model.loss(batch)["total"], expected)


def test_without_a_memory_the_bases_are_rd_and_stpm() -> None:
    x = torch.rand(2, 3, 64, 64)
    for base, kind in (("rd", RD), ("stpm", STPM)):
        n = {"neighbourhood": 3, "seed": 1}
        own, plain = build(base=base, neck="none", **n), tiny.build(base, **n)
        assert isinstance(plain, kind)
        student = own.student if base == "rd" else own.student.network
        student.load_state_dict(plain.student.state_dict())  # type: ignore[union-attr]
        for (t, s), (t2, s2) in zip(own.pairs(x), plain.eval().pairs(x), strict=True):
            torch.testing.assert_close((t, s), (t2, s2))
        torch.testing.assert_close(own.distance(t, s), losses.cosine_distance(t, s), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("base", ["rd", "stpm"])
def test_the_memory_is_the_only_way_through(base: str) -> None:
    """One centre and nothing beside it: what lies behind the memory is the same for all images."""
    model = build(base=base, centres=1, rho="zero")
    with torch.no_grad():
        levels = [s for _, s in model.pairs(torch.rand(2, 3, 64, 64))]
    same = [torch.allclose(s[0], s[1], atol=1e-4) for s in levels]
    assert same == ([True] * 3 if base == "rd" else [False, False, True])


@pytest.mark.parametrize("base", ["rd", "stpm"])
def test_other_teachers_and_sizes(base: str) -> None:
    model = build(base=base, backbone="resnet18", weights="random")
    assert model.student.neck.centres.shape == (128, 256)
    assert model.anomaly_map(torch.rand(1, 3, 64, 96)).shape == (1, 1, 64, 96)


def test_training_in_half_precision_on_stpm_and_with_seeded_centres(tmp_path: Any) -> None:
    images = tiny.normal(tmp_path)
    for base in ("rd", "stpm"):
        model, again = (build(base=base, centre_init="tokens", centres=8, steps=2) for _ in range(2))
        memory = model.student.neck
        before = memory.centres.clone()
        history = tiny.fit(model, images, precision="bf16")
        assert history.runtime == "cpu, bf16" and not torch.allclose(before, memory.centres, atol=0.1)
        assert tiny.fit(again, images, precision="bf16").rows == history.rows


def test_the_learning_rate_falls_to_a_tenth() -> None:
    model = build(steps=10)
    for decay, expected in ((0.8, [0.005] * 8 + [0.0005] * 2), (1.0, [0.005] * 10)):
        model = build(steps=10, decay=decay)
        (phase,) = model.phases([])  # type: ignore[arg-type]
        optimiser = phase.optimiser(phase.parameters)
        assert phase.scheduler is not None
        schedule, rates = phase.scheduler(optimiser), []
        for _ in range(phase.steps):
            rates.append(schedule.get_last_lr()[0])
            optimiser.step()
            schedule.step()
        assert rates == pytest.approx(expected)


def test_settings_that_make_no_sense() -> None:
    for wrong in ({"channel": -1.0}, OFF, OFF | {"neck_weight": 1.0}):
        with pytest.raises(ValueError, match="expected weights of 0 or more"):
            build(**wrong)
    for wrong in ({"temperature": 0.0}, {"decay": 0.0}, {"decay": 2.0}, {"grid": 0}, {"centres": 0}):
        with pytest.raises(ValueError, match=r"expected a positive temperature, a decay in 0\.\.1"):
            build(**wrong)
    for name, value in (("base", "rdpp"), ("rho", "half"), ("reduction", "sum"), ("centre_init", "zero")):
        with pytest.raises(ValueError, match=f"{name} is '{value}'; expected one of"):
            build(**{name: value})
    with pytest.raises(ValueError, match="multiples of 32"):
        build().anomaly_map(torch.rand(1, 3, 48, 64))
