"""Whitened level maps: the Mahalanobis distance by hand, cross-fitting, saving, and what cannot be whitened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

import kdlib as kd
from kdlib.scoring.normal_maps import NormalMaps
from kdlib.scoring.whitening import SHRINKAGE, Moments, Whitening


def inverse(residual: torch.Tensor) -> torch.Tensor:
    vectors = residual.double().movedim(1, -1).flatten(0, 2)
    second = vectors.T @ vectors / len(vectors)
    return torch.linalg.inv(second + SHRINKAGE * second.trace() / len(second) * torch.eye(len(second)))


def test_the_map_is_a_mahalanobis_distance() -> None:
    residual = torch.randn(3, 5, 4, 6)
    for cuts in ([3], [1, 2]):
        (found,) = Whitening.fit(Moments.of([part] for part in residual.split(cuts)))([residual])
        expected = torch.einsum("bchw,cd,bdhw->bhw", residual, inverse(residual).float(), residual)[:, None] / 5
        torch.testing.assert_close(found, expected)


def test_normal_residuals_have_a_mean_of_about_one() -> None:
    residual = torch.randn(20, 8, 6, 6) * torch.logspace(-2, 1, 8).view(1, -1, 1, 1)
    (found,) = Whitening.fit(Moments.of([[residual]]), shrinkage=1e-9)([residual])
    assert found.mean().item() == pytest.approx(1, rel=1e-4)


def test_a_step_in_a_quiet_direction_counts_more() -> None:
    """Two residuals of one length: along the channel that always fails, and along one that never does."""
    normal = torch.randn(50, 2, 4, 4) * torch.tensor([10.0, 0.1]).view(1, 2, 1, 1)
    usual, unusual = torch.zeros(2, 1, 2, 1, 1).unbind(0)
    usual[:, 0], unusual[:, 1] = 5, 5
    whitening = Whitening.fit(Moments.of([[normal]]), shrinkage=1e-3)
    assert whitening([unusual])[0].item() > 100 * whitening([usual])[0].item()


@pytest.mark.parametrize("residual", [torch.zeros(1, 2, 3, 3), torch.full((1, 2, 3, 3), torch.nan)])
def test_residuals_without_any_spread_are_refused(residual: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="residuals of level 0 have a mean square"):
        Whitening.fit(Moments.of([[residual]]))


def test_matrices_that_are_none_are_refused() -> None:
    for wrong in (torch.ones(2, 3), torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.full((2, 2), torch.inf)):
        with pytest.raises(ValueError, match="expected a finite symmetric matrix"):
            Whitening([wrong])
    with pytest.raises(ValueError, match="residuals of 2 levels, whitening of 1"):
        Whitening([torch.eye(2)])([torch.ones(1, 2, 1, 1)] * 2)


def test_half_the_squared_residual_is_the_map(calib_model: Any, calib_data: kd.data.Splits) -> None:
    x = calib_data.test[0]["image"][None]
    with torch.no_grad():
        for residual, level in zip(calib_model.residuals(x), calib_model.level_maps(x), strict=True):
            torch.testing.assert_close(residual.square().sum(1, keepdim=True) / 2, level, rtol=1e-3, atol=1e-5)


def test_every_image_is_scored_by_the_statistics_of_others(calib_model: Any, calib_data: kd.data.Splits) -> None:
    detector = tiny.calibrated(calib_model, calib_data.calib, maps="whitened")
    x = torch.stack([calib_data.calib[i]["image"] for i in range(8)])
    with torch.no_grad():
        residuals = calib_model.residuals(x)
    scores = []
    for i in range(8):
        others = [j for j in range(8) if j % 5 != i % 5]
        whitening = Whitening([inverse(level[others]).float() for level in residuals])
        means = [level[others].mean(0, keepdim=True) for level in whitening(residuals)]
        normal = NormalMaps(means, by="rim", strength=0.5)
        amap = calib_model.fuse(normal(whitening([level[i : i + 1] for level in residuals])), x.shape[-2:], "product")
        scores.append(float(calib_model.image_score(amap)))
    assert detector.threshold.value == pytest.approx(max(scores), rel=1e-3)


def test_the_flow_teachers_latents_are_whitened_as_they_are(calib_data: kd.data.Splits) -> None:
    torch.manual_seed(0)
    model = tiny.build("dhkd", backbone="resnet18", weights="random", steps=2)
    tiny.fit(model, calib_data.train)
    x = calib_data.test[0]["image"][None]
    with torch.no_grad():
        for residual, (t, s) in zip(model.residuals(x), model.pairs(x), strict=True):
            torch.testing.assert_close(residual, t - s)
    assert np.isfinite(tiny.calibrated(model, calib_data.calib, maps="whitened").threshold.value)


@pytest.mark.parametrize(("method", "options"), [("nearest", {}), ("dhkd", {"score": "likelihood", "steps": 1})])
def test_maps_that_are_no_distances_are_refused(
    method: str, options: dict[str, Any], calib_data: kd.data.Splits
) -> None:
    model = tiny.build(method, backbone="resnet18", weights="random", **options)
    tiny.fit(model, calib_data.train)
    with pytest.raises(ValueError, match="are no distances"):
        tiny.calibrated(model, calib_data.calib, maps="whitened")


def test_whitening_is_saved_with_the_detector(calib_model: Any, calib_data: kd.data.Splits, tmp_path: Path) -> None:
    detector = tiny.calibrated(calib_model, calib_data.calib, maps="whitened")
    loaded = kd.load(kd.save(detector, tmp_path))
    image = torch.rand(3, 64, 64)
    verdicts = [kd.score(one, image, device="cpu") for one in (detector, loaded)]
    assert np.array_equal(verdicts[0].maps, verdicts[1].maps)
    x = image[None]
    with torch.no_grad():
        exported = torch.export.export(detector, (x,), strict=False)
        torch.testing.assert_close(exported.module()(x), detector(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [*kd.methods.METHODS.values(), *kd.methods.BASELINES.values()])
def test_whoever_has_maps_of_its_own_says_what_its_residuals_are(kind: type[kd.contract.Distiller]) -> None:
    base = kd.contract.Distiller
    says_when = isinstance(kind.whitens, property)  # for some of its maps only
    own_residuals = kind.residuals is not base.residuals
    assert kind.level_maps is base.level_maps or own_residuals or says_when or not kind.whitens
