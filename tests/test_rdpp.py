"""RD++: its parts against the published code's values, its transport loss, zero as coded, its noise, its rates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from opensimplex import OpenSimplex
from torch import Tensor

from kdlib import losses
from kdlib.contract import Batch
from kdlib.layers.sinkhorn import sinkhorn_divergence
from kdlib.methods import preset
from kdlib.methods.rdpp import RDPP, Projection, RDPPConfig, contrast_loss, transport_loss
from kdlib.synthesis.noise import noisy_patch, simplex_octaves

REFERENCE = Path(__file__).parent / "reference" / "rdpp.npz"
LEVELS = range(3)
OFFICIAL: dict[str, Any] = {"diameter": 1e7, "scaling": 0.95, "rounds": 0}


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    with np.load(REFERENCE) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def levels(reference: dict[str, Tensor], name: str) -> list[Tensor]:
    return [reference[f"{name}{level}"] for level in LEVELS]


def same(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """The rule of the reference values: the largest difference against the largest value."""
    found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def build(**overrides: Any) -> RDPP:
    model = tiny.build("rdpp", **overrides)
    assert isinstance(model, RDPP)
    return model


def published(reference: dict[str, Tensor], **overrides: Any) -> RDPP:
    """A model whose projections have the published code's channels and weights."""
    model = build(ssot="as_coded", weights="random", **overrides)
    model.projections = torch.nn.ModuleList(Projection(c) for c in (8, 16, 32))
    for projection, letter in zip(model.projections, "abc", strict=True):
        prefix = f"proj/proj_{letter}.proj."
        own = {name.removeprefix(prefix): value for name, value in reference.items() if name.startswith(prefix)}
        projection.load_state_dict(own)
    return model.eval()


def a_batch(model: RDPP, count: int = 4, size: int = 64) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(count, 3, size, size, generator=generator)
    noisy = torch.stack([model.view(one, generator)["noisy"] for one in image])
    return Batch(image=image, category=torch.zeros(count, dtype=torch.long), views={"noisy": noisy})


def test_projections_give_what_the_published_code_gives(reference: dict[str, Tensor]) -> None:
    model = published(reference)
    for name, result in (("feature", "projected"), ("noisy_feature", "projected_noisy")):
        for found, expected in zip(model.project(levels(reference, name)), levels(reference, result), strict=True):
            same(found.detach(), expected)


def test_losses_are_the_published_ones(reference: dict[str, Tensor]) -> None:
    model = published(reference)
    t, n, s, p = (levels(reference, name) for name in ("feature", "noisy_feature", "student", "projected"))
    same(model.distilled(t, s, {}, 0.0)["total"], reference["loss_distill"])
    named = model.projection_losses(p, n)
    same(named["reconstruct"].detach(), reference["loss_reconstruct"])
    assert float(named["contrast"]) == float(reference["loss_contrast"]) == 0
    same(sum(contrast_loss(a, b) for a, b in zip(n, t, strict=True)), reference["loss_contrast_raw"])
    same(contrast_loss(reference["contrast_a"], reference["contrast_b"]), reference["contrast_rows"])
    same(weighted(named), reference["loss_proj_official"])
    raw = zip(n, t, strict=True)
    reconstruct = sum(losses.per_position_cosine(a, b) for a, b in raw)
    named = {"transport": named["transport"], "reconstruct": reconstruct, "contrast": reference["loss_contrast_raw"]}  # type: ignore[dict-item]
    same(weighted(named), reference["loss_proj_official_raw"])


def weighted(named: dict[str, Tensor]) -> Tensor:
    return (named["transport"] + 0.01 * named["reconstruct"] + 0.1 * named["contrast"]).detach() / 1.11


def test_as_coded_the_transport_loss_is_zero_and_teaches_nothing(reference: dict[str, Tensor]) -> None:
    found = []
    for p in levels(reference, "projected"):
        points = torch.softmax(p.flatten(1), 1).requires_grad_()
        value = sinkhorn_divergence(points, points[reference["shuffle"]], **OFFICIAL)
        (gradient,) = torch.autograd.grad(value, points)
        assert gradient.abs().max() < 1e-7 and abs(float(transport_loss(p, "as_coded"))) < 1e-8
        found.append(float(value.detach()))
    assert abs(sum(found)) < 1e-8 and abs(float(reference["ssot_shuffled"])) < 1e-8
    double = [torch.softmax(p.double().flatten(1), 1) for p in levels(reference, "projected")]
    shuffled = [sinkhorn_divergence(p, p[reference["shuffle"]], **OFFICIAL) for p in double]
    assert abs(float(sum(shuffled))) < 1e-14 and abs(float(reference["ssot_shuffled_f64"])) < 1e-14  # type: ignore[arg-type]


def test_two_different_batches_are_apart(reference: dict[str, Tensor]) -> None:
    clean, noisy = levels(reference, "projected"), levels(reference, "projected_noisy")
    pairs = [[torch.softmax(f.flatten(1), 1) for f in pair] for pair in zip(clean, noisy, strict=True)]
    same(sum(sinkhorn_divergence(a, b, **OFFICIAL) for a, b in pairs), reference["ssot_other_batch"])
    double = [[f.double() for f in pair] for pair in pairs]
    coded = [sinkhorn_divergence(a, b, **OFFICIAL) for a, b in double]
    same(sum(coded), reference["ssot_other_batch_f64"], 1e-7)
    converged = sum(sinkhorn_divergence(a, b, diameter=2.0) for a, b in double)
    error = abs(float(converged / reference["ssot_other_batch_f64"]) - 1)  # type: ignore[operator]
    assert error == pytest.approx(2.2e-5, rel=0.05)


@pytest.mark.parametrize(
    ("name", "other", "settings", "error"),  # of a schedule without the last rounds; see reference/README.md
    [
        ("sinkhorn_official_settings", "b", {"blur": 0.05, "diameter": 1e7, "scaling": 0.95}, 2.9e-3),
        ("sinkhorn_official_settings_ac", "c", {"blur": 0.05, "diameter": 1e7, "scaling": 0.95}, 0.0),
        ("sinkhorn_blur05_diam10_scal09", "b", {"blur": 0.5, "diameter": 10.0, "scaling": 0.9}, 3.4e-4),
        ("sinkhorn_blur1_diam10_scal09", "b", {"blur": 1.0, "diameter": 10.0, "scaling": 0.9}, 8e-5),
    ],
)
def test_sinkhorn_with_and_without_its_last_rounds(
    name: str, other: str, settings: dict[str, float], error: float, reference: dict[str, Tensor]
) -> None:
    a, b = reference["points_a"].double(), reference[f"points_{other}"].double()
    published = reference[name]
    same(sinkhorn_divergence(a, b, rounds=0, **settings), published, 1e-9)
    converged = sinkhorn_divergence(a, b, rounds=2500 if error > 1e-3 else 500, **settings)
    assert abs(float(converged / published) - 1) == pytest.approx(error, rel=0.1, abs=1e-7)


def test_sinkhorn_of_a_set_with_itself_and_its_gradient(reference: dict[str, Tensor]) -> None:
    settings: dict[str, Any] = {"blur": 1.0, "diameter": 10.0, "scaling": 0.9, "rounds": 0}
    a, b = reference["points_a"].double(), reference["points_b"].double()
    assert abs(float(sinkhorn_divergence(a, a, **settings))) < 1e-12
    assert abs(float(reference["sinkhorn_blur1_diam10_scal09_self"])) < 1e-12
    a.requires_grad_()
    (gradient,) = torch.autograd.grad(sinkhorn_divergence(a, b, **settings), a)
    same(gradient, reference["sinkhorn_blur1_diam10_scal09_grad_a"])


def test_sinkhorn_of_two_points_each_by_hand() -> None:
    x, y = torch.tensor([[0.0], [10.0]]), torch.tensor([[1.0], [13.0]])
    found = sinkhorn_divergence(x, y, diameter=20.0, blur=0.01)
    assert float(found) == pytest.approx((1**2 / 2 + 3**2 / 2) / 2, rel=1e-4)
    wide = sinkhorn_divergence(x.double(), y.double(), diameter=2e3, blur=1e3)
    assert float(wide) == pytest.approx((7 - 5) ** 2 / 2, rel=1e-3)  # far above the distances only the means count


def test_halves_differ_and_learn() -> None:
    p = (0.1 * torch.randn(4, 8, 4, 4)).requires_grad_()
    value = transport_loss(p, "halves")
    (gradient,) = torch.autograd.grad(value, p)
    assert value > 1e-6 and gradient.abs().max() > 1e-8
    assert abs(float(transport_loss(torch.cat([p, p]).detach(), "halves"))) < 1e-8
    assert abs(float(transport_loss(p[:1].detach(), "halves"))) < 1e-8
    both = [torch.softmax(half.flatten(1), 1).mean(0) for half in p.chunk(2)]
    means = (both[0] - both[1]).square().sum() / 2
    torch.testing.assert_close(value, means, rtol=0.02, atol=0)  # at this blur hardly more than the means counts


def test_simplex_noise_is_the_published_one(reference: dict[str, Tensor]) -> None:
    seed = int(reference["simplex_seed"])
    simplex = OpenSimplex(seed)
    same(simplex._perm, reference["simplex_perm"], 0)
    same(simplex._perm_grad_index3, reference["simplex_perm_grad_index3"], 0)
    points = simplex.noise3array(np.arange(6) / 4, np.arange(5) / 4, np.arange(3) / 4)
    same(points, reference["simplex_noise3_points"], 0)
    same(simplex_octaves((3, 11, 14), seed), reference["simplex_rand_3d_octaves"], 1e-12)
    flat = np.zeros((10, 10))
    for octave in range(6):
        axis = np.arange(10) / (32 / 2**octave)
        flat += 0.6**octave * simplex.noise2array(axis, axis)
    same(flat, reference["simplex_rand_2d_octaves"], 1e-12)


@pytest.mark.parametrize("noise", ["simplex", "bands"])
def test_noise_lies_in_one_rectangle_that_scales_with_the_image(noise: Any) -> None:
    sides = []
    for seed in range(3 if noise == "simplex" else 200):
        size = (256, 320) if seed % 2 else (128, 160)
        image = torch.full((3, *size), 0.5)
        noisy = noisy_patch(image, torch.Generator().manual_seed(seed), noise=noise)
        changed = (noisy != 0.5).any(0)
        rows, columns = (changed.any(dim).nonzero().flatten() for dim in (1, 0))
        assert rows[0] >= 1 and columns[0] >= 1 and rows[-1] < size[0] - 1 and columns[-1] < size[1] - 1
        sides += [(axis[-1] - axis[0] + 1) * 256 / size[0] for axis in (rows, columns)]
        assert float(image.min()) == float(image.max()) == 0.5
    assert min(sides) >= 8 and max(sides) <= 31
    if noise == "bands":
        assert min(sides) <= 10 and max(sides) >= 30


def test_every_image_and_step_has_its_own_pattern() -> None:
    image = torch.zeros(3, 64, 64)
    for noise in ("simplex", "bands"):
        one, again, other = (noisy_patch(image, torch.Generator().manual_seed(s), noise=noise) for s in (1, 1, 2))
        assert torch.equal(one, again) and not torch.equal(one, other)


def test_the_fast_noise_is_as_strong_as_simplex() -> None:
    def deviation(noise: Any, count: int) -> float:
        options: dict[str, Any] = {"noise": noise, "strength": 1, "patch": (10, 16)}
        image = torch.zeros(3, 256, 256)
        drawn = [noisy_patch(image, torch.Generator().manual_seed(s), **options) for s in range(count)]
        return float(torch.cat([one[one != 0] for one in drawn]).square().mean().sqrt())

    assert deviation("bands", 100) == pytest.approx(deviation("simplex", 12), rel=0.2)


def test_defaults_are_those_of_the_official_code() -> None:
    config = preset("rdpp/mvtec")
    assert isinstance(config, RDPPConfig)
    assert (config.lr, config.lr_projection, config.betas) == (0.005, 0.001, (0.5, 0.999))
    assert (config.backbone, config.loss, config.ssot, config.noise) == (
        "wide_resnet50_2",
        "global",
        "as_coded",
        "simplex",
    )
    assert (config.projection_weight, config.reconstruct, config.contrast) == (0.2, 0.01, 0.1)


def test_projections_of_the_paper_have_15_million_weights() -> None:
    with torch.device("meta"):
        millions = [sum(p.numel() for p in Projection(c).parameters()) / 1e6 for c in (256, 512, 1024)]
    assert millions == pytest.approx([0.74, 2.95, 11.80], abs=0.005)


def test_one_optimiser_with_two_rates(tmp_path: Path) -> None:
    model = build(schedule="cosine")
    (phase,) = model.phases(tiny.normal(tmp_path))  # type: ignore[arg-type]
    assert phase.view is not None and phase.scheduler is not None
    projections, others = phase.optimiser(phase.parameters).param_groups
    assert (projections["lr"], others["lr"]) == (0.001, 0.005)
    assert {id(p) for p in projections["params"]} == {id(p) for p in model.projections.parameters()}
    assert {id(p) for p in phase.trained()} == {id(p) for p in model.student_parameters()}


def test_the_total_is_the_sum_of_its_weighted_parts() -> None:
    model = build(ssot="halves").eval()
    named = model.loss(a_batch(model))
    whole = sum(named[f"level_{level}"] for level in LEVELS)
    torch.testing.assert_close(named["total"], whole + 0.2 * weighted(named))


def test_the_student_sees_projected_features_and_restores_raw_ones() -> None:
    model = build().eval()
    x = torch.rand(2, 3, 64, 64)
    t = model.teach(x)
    handed = model.student(x, model.project(t))[0]
    for (raw, s), f, h in zip(model.pairs(x), t, handed, strict=True):
        assert torch.equal(raw, f) and torch.equal(s, h)


def test_switched_off_losses_cost_nothing() -> None:
    model = build(reconstruct=0.0, contrast=0.0)
    (phase,) = model.phases([None] * 4)  # type: ignore[arg-type]
    assert phase.view is None and not model.config.looks_at_noise
    image = torch.rand(2, 3, 64, 64)
    named = model.loss(Batch(image=image, category=torch.zeros(2, dtype=torch.long)))
    assert set(named) == {"total", "level_0", "level_1", "level_2"}
    alone = build(contrast=0.0, ssot="off")
    assert "contrast" not in alone.loss(a_batch(alone)) and "reconstruct" in alone.loss(a_batch(alone))


def test_what_does_not_fit_is_refused() -> None:
    model = build()
    with pytest.raises(ValueError, match=r"views \[\]; RD\+\+'s loss needs 'noisy'.*Batch\(views="):
        model.loss(Batch(image=torch.rand(1, 3, 64, 64), category=torch.zeros(1, dtype=torch.long)))
    for wrong in ({"contrast": -1.0}, {"lr_projection": 0.0}, {"noise_strength": -0.1}):
        with pytest.raises(ValueError, match=r"expected 0 or more.*expected above 0"):
            RDPPConfig(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"patch is \(32.0, 10.0\); expected two lengths that grow"):
        RDPPConfig(patch=(32.0, 10.0))
    with pytest.raises(ValueError, match="ssot is 'zero'; expected one of as_coded, halves, off"):
        build(ssot="zero")
    with pytest.raises(ValueError, match=r"3 channels.*needs 4 or more"):
        Projection(3)
