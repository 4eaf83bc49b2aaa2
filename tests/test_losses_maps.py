"""Losses and maps against published code's results, against SciPy, and against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from kdlib import losses, maps
from kdlib.config import Fusion
from kdlib.contract import Pairs

REFERENCE = Path(__file__).parent / "reference" / "features.npz"
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def reference() -> Mapping[str, Any]:
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def pairs(reference: Mapping[str, Any]) -> Pairs:
    return [(torch.tensor(reference[f"teacher{i}"]), torch.tensor(reference[f"student{i}"])) for i in range(3)]


def column(*positions: tuple[float, ...]) -> torch.Tensor:
    """One image [1, C, 1, N] with these feature vectors side by side."""
    return torch.tensor(positions).T[None, :, None, :]


def test_stpm_loss(pairs: Pairs, reference: Mapping[str, Any]) -> None:
    named = losses.over_levels(pairs, lambda t, s: losses.normalised_l2(t, s).mean())
    np.testing.assert_allclose(named["total"].numpy(), reference["stpm_official_loss"], **CLOSE)
    assert torch.isclose(named["total"], named["level_0"] + named["level_1"] + named["level_2"])


def test_reverse_distillation_losses(pairs: Pairs, reference: Mapping[str, Any]) -> None:
    for distance, key in (
        (losses.global_cosine, "rd_global_cosine_loss"),
        (losses.per_position_cosine, "per_position_cosine_loss"),
    ):
        np.testing.assert_allclose(losses.over_levels(pairs, distance)["total"].numpy(), reference[key], **CLOSE)


def level_maps(pairs: Pairs, distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
    return [distance(t, s)[:, None] for t, s in pairs]


def test_published_maps(pairs: Pairs, reference: Mapping[str, Any]) -> None:
    fuse = partial(maps.fuse, size=(64, 64), blur=0)
    squared, cosine = (level_maps(pairs, distance) for distance in (losses.normalised_l2, losses.cosine_distance))
    for found, key in (
        (fuse(squared, fusion="product"), "stpm_official_map_64"),
        (fuse(cosine, fusion="sum", align_corners=True), "rd_map_add_64"),
        (fuse(cosine, fusion="product", align_corners=True), "rd_map_mul_64"),
    ):
        assert found.shape == (3, 1, 64, 64)
        np.testing.assert_allclose(found[:, 0].numpy(), reference[key], **CLOSE)


def test_half_the_squared_distance_of_unit_vectors_is_one_minus_the_cosine() -> None:
    t, s = torch.randn(2, 16, 5, 7), torch.randn(2, 16, 5, 7)
    torch.testing.assert_close(losses.normalised_l2(t, s) / 2, losses.cosine_distance(t, s), rtol=0, atol=1e-6)
    after_relu = losses.cosine_distance(t.relu(), s.relu())
    assert after_relu.min() >= 0 and after_relu.max() <= 1 < losses.cosine_distance(t, s).max()


def test_distances_ignore_length() -> None:
    t, s = torch.rand(2, 4, 3, 3), torch.rand(2, 4, 3, 3)
    for distance in (losses.cosine_distance, losses.normalised_l2):
        torch.testing.assert_close(distance(5 * t, s), distance(t, s))
        assert distance(t, t).abs().max() < 1e-6


def test_dead_positions() -> None:
    t, s = column((0, 0), (0, 0)), column((1, 2), (0, 0))
    assert losses.normalised_l2(t, s).flatten().tolist() == pytest.approx([1, 0])
    assert losses.cosine_distance(t, s).flatten().tolist() == pytest.approx([1, 1])


def test_distances_of_half_precision_features_come_in_float32() -> None:
    t, s = torch.rand(1, 8, 4, 4).bfloat16(), torch.rand(1, 8, 4, 4).bfloat16()
    for distance in (losses.cosine_distance, losses.normalised_l2, losses.per_position_cosine, losses.global_cosine):
        assert distance(t, s).dtype == torch.float32


def test_global_cosine_ignores_errors_at_faint_positions() -> None:
    t, s = column((10, 0), (1, 0)), column((10, 0), (0, 1))
    assert losses.global_cosine(t, s) == pytest.approx(0.0099, abs=5e-5)
    assert losses.per_position_cosine(t, s) == pytest.approx(0.5)


def test_fusions_rank_a_peak_at_one_level_and_agreement_of_two_differently() -> None:
    levels = [torch.tensor([[[[0.9, 0.3]]]]), torch.tensor([[[[0.0, 0.3]]]])]
    expected: dict[Fusion, list[float]] = {
        "sum": [0.9, 0.6],
        "mean": [0.45, 0.3],
        "product": [0.0, 0.09],
        "max": [0.9, 0.3],
    }
    for fusion, values in expected.items():
        found = maps.fuse(levels, (1, 2), fusion=fusion, blur=0)
        torch.testing.assert_close(found[0, 0, 0], torch.tensor(values))


def test_unknown_fusion() -> None:
    with pytest.raises(ValueError, match=r"'min'.*max.*product"):
        maps.fuse([torch.rand(1, 1, 4, 4)], (8, 8), fusion="min")  # type: ignore[arg-type]


@pytest.mark.parametrize("sigma", [0.5, 1.7, 4.0, 9.0])
@pytest.mark.parametrize("shape", [(64, 64), (24, 40), (5, 3)])
def test_blur_equals_scipy(sigma: float, shape: tuple[int, int]) -> None:
    image = torch.rand(2, 1, *shape, dtype=torch.float64)
    expected = np.stack([ndimage.gaussian_filter(one.numpy(), sigma) for one in image[:, 0]])
    np.testing.assert_allclose(maps.gaussian_blur(image, sigma)[:, 0], expected, rtol=1e-9)


def test_blur_works_in_both_directions() -> None:
    impulse = torch.zeros(1, 1, 64, 64)
    impulse[..., 32, 32] = 1
    blurred = maps.gaussian_blur(impulse, 4)
    assert float(blurred.amax()) == pytest.approx(0.00995, abs=2e-5)
    torch.testing.assert_close(blurred, blurred.mT)
    assert maps.gaussian_blur(impulse, 0) is impulse


def test_blur_scales_with_the_image() -> None:
    level = [torch.rand(1, 1, 8, 8)]
    unblurred = maps.fuse(level, (64, 64), blur=0)
    torch.testing.assert_close(maps.fuse(level, (64, 64), blur=4), maps.gaussian_blur(unblurred, 1))


def test_blur_keeps_float32_under_autocast() -> None:
    image = torch.rand(1, 1, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(maps.gaussian_blur(image, 2), maps.gaussian_blur(image, 2).float())
        inside = maps.gaussian_blur(image, 2)
    assert torch.equal(inside, maps.gaussian_blur(image, 2))


def test_level_maps_are_brought_to_one_size() -> None:
    levels = [torch.rand(2, 1, n, n + 1) for n in (8, 4)]
    assert maps.resized(levels, (32, 36)).shape == (2, 2, 1, 32, 36)


def test_image_score() -> None:
    amap = torch.arange(12.0).view(2, 1, 2, 3)
    assert maps.image_score(amap).tolist() == [5, 11]
    assert maps.image_score(amap, top_k=2).tolist() == [4.5, 10.5]
    assert maps.image_score(amap, top_k=6).tolist() == [2.5, 8.5]
    rimmed = torch.full((2, 1, 128, 128), 9.0)
    rimmed[..., 8:-8, 8:-8] = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    assert maps.image_score(rimmed, margin=16).tolist() == [1, 2]
    assert maps.image_score(rimmed, margin=14).tolist() == [9, 9]
    for wrong in (0, 7):
        with pytest.raises(ValueError, match=f"top_k is {wrong}.*6 pixels"):
            maps.image_score(amap, top_k=wrong)


def test_channel_kl_ignores_constants_and_reductions_differ_by_positions():
    t, s = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    kl = losses.channel_kl(t, s)
    p, q = t.flatten(2).softmax(2), s.flatten(2).softmax(2)
    torch.testing.assert_close(kl, (p * (p / q).log()).sum(2).mean())
    torch.testing.assert_close(kl, losses.channel_kl(t, s + torch.randn(1, 3, 1, 1)), atol=1e-6, rtol=0)
    torch.testing.assert_close(kl, 16 * losses.channel_kl(t, s, reduction="vandgnl"))


def test_affinities_see_angles_between_positions_and_nothing_else():
    t, s = torch.randn(3, 8, 20, 20), torch.randn(3, 8, 20, 20)
    rotation = torch.linalg.qr(torch.randn(8, 8)).Q
    turned = torch.einsum("dc,bchw->bdhw", rotation, t)
    for affinity in (losses.intra_affinity, losses.inter_affinity):
        assert affinity(t, turned) < 1e-6 < affinity(t, s)
    first, second = (F.normalize(F.adaptive_avg_pool2d(f, 16).flatten(2), dim=1) for f in (t, s))
    pairs = [(i, i - 1) for i in range(3)]
    expected = torch.stack([(first[i].T @ first[j] - second[i].T @ second[j]).pow(2).mean() for i, j in pairs]).mean()
    torch.testing.assert_close(losses.inter_affinity(t, s), expected)
    assert losses.inter_affinity(t[:1], s[:1]) == 0
