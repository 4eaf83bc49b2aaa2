"""Level maps measured against normal ones: means by hand, the floor, other sizes, calibration on disjoint images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

import kdlib as kd
from kdlib.maps import gaussian_blur
from kdlib.scoring.normal_maps import NormalMaps, Tally


def test_the_mean_is_over_images_whatever_the_batches() -> None:
    maps = torch.rand(7, 1, 5, 6)
    for cuts in ([7], [3, 4], [1] * 7):
        normal = NormalMaps.fit(Tally.of([part] for part in maps.split(cuts)))
        torch.testing.assert_close(normal.means(), [maps.mean(0, keepdim=True)])


def test_a_map_is_divided_by_the_smoothed_mean_of_its_place() -> None:
    mean = 1 + torch.rand(1, 1, 6, 8)
    amap = torch.rand(3, 1, 6, 8)
    (found,) = NormalMaps([mean], floor=0.1)([amap])
    torch.testing.assert_close(found, amap / gaussian_blur(mean, 1.0))


def test_quiet_places_are_raised_to_the_floor() -> None:
    mean = torch.ones(1, 1, 1, 40)
    mean[..., :20] = 0.01
    (found,) = NormalMaps([mean], floor=0.5)([torch.ones(1, 1, 1, 40)])
    assert found[..., :12].unique().tolist() == pytest.approx([1 / (0.5 * mean.mean().item())])
    assert found[..., 30:].mean() == pytest.approx(1)


def test_half_of_the_correction_divides_by_the_root() -> None:
    mean = torch.ones(1, 1, 1, 40)
    mean[..., :20] = 3
    (found,) = NormalMaps([mean], floor=0.1, strength=0.5)([torch.ones(1, 1, 1, 40)])
    assert found[0, 0, 0, [0, -1]].tolist() == pytest.approx([(2 * 3) ** -0.5, 2**-0.5], rel=1e-5)


def test_by_the_rim_places_share_the_mean_of_their_ring() -> None:
    mean = torch.rand(1, 1, 7, 9) + 0.5
    whole, inner, core = (mean[0, 0, k : 7 - k, k : 9 - k] for k in range(3))
    ring = torch.empty(7, 9)
    for k, value in ((0, (whole.sum() - inner.sum()) / 28), (1, (inner.sum() - core.sum()) / 20), (2, core.mean())):
        ring[k : 7 - k, k : 9 - k] = value
    for strength in (0.0, 0.25, 1.0):
        (found,) = NormalMaps([mean], floor=1e-6, by="rim", strength=strength)([torch.ones(1, 1, 7, 9)])
        torch.testing.assert_close(found, 1 / (ring ** (1 - strength) * gaussian_blur(mean, 1.0) ** strength))
    (small,) = NormalMaps([mean[..., :2, :2]], by="rim", strength=0)([torch.ones(1, 1, 2, 2)])
    assert small.unique().numel() == 1
    with pytest.raises(ValueError, match="by is 'edge'; expected one of place, rim"):
        NormalMaps([mean], by="edge")  # type: ignore[arg-type]


def test_maps_of_another_size_take_a_resized_mean() -> None:
    mean = torch.linspace(1, 2, 8).view(1, 1, 1, 8).expand(1, 1, 8, 8).contiguous()
    (found,) = NormalMaps([mean], floor=0.5)([torch.ones(2, 1, 16, 24)])
    assert found.shape == (2, 1, 16, 24) and found[0, 0, 0, 0] > 0.9 and found[0, 0, 0, -1] < 0.6


def test_exponential_errors_exceed_a_threshold_equally_often_everywhere() -> None:
    mean = torch.linspace(1, 4, 12).expand(1, 1, 12, 12)
    errors = torch.empty(4000, 1, 12, 12).exponential_() * mean
    (found,) = NormalMaps.fit(Tally.of([[errors]]), floor=0.1)([errors])
    rates = (found > 3).double().mean((0, 1))
    assert rates.mean() == pytest.approx(np.exp(-3), rel=0.05)
    assert rates.std() < (errors > 3 * mean.mean()).double().mean((0, 1)).std() / 3


REFUSED: dict[str, tuple[Any, str]] = {
    "NaN": ([[torch.full((1, 1, 2, 2), torch.nan)]], "NaN or infinite"),
    "nothing": ([], "no maps of normal images"),
    "zero": ([[torch.zeros(1, 1, 2, 2)]], "expected .* not all 0"),
}


@pytest.mark.parametrize("which", REFUSED)
def test_what_cannot_be_a_normal_map_is_refused(which: str) -> None:
    maps, words = REFUSED[which]
    with pytest.raises(ValueError, match=words):
        NormalMaps.fit(Tally.of(maps))


def test_other_levels_and_floors_are_refused() -> None:
    normal = NormalMaps([torch.ones(1, 1, 2, 2)])
    with pytest.raises(ValueError, match="found 2 level maps, but means of 1"):
        normal([torch.ones(1, 1, 2, 2)] * 2)
    for floor in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match="floor is"):
            NormalMaps([torch.ones(1, 1, 2, 2)], floor=floor)


def test_a_cosine_that_rounds_below_zero_is_no_negative_map() -> None:
    assert NormalMaps.fit(Tally.of([[torch.tensor([[[[0.1, -1e-7]]]])]])).bases == (0.0,)


def test_a_level_that_goes_below_zero_counts_from_its_lowest_normal_value() -> None:
    maps = torch.tensor([[[[-3.0, 1.0]]], [[[-1.0, 3.0]]]])
    normal = NormalMaps.fit(Tally.of([[maps]]), floor=1e-6)
    assert normal.bases == (-3.0,)
    torch.testing.assert_close(normal.means(), [torch.tensor([[[[1.0, 5.0]]]])])
    (found,) = normal([torch.full((1, 1, 1, 2), -4.0)])
    assert found.tolist() == [[[[0.0, 0.0]]]]


def test_tallies_of_parts_add_up() -> None:
    maps = torch.randn(9, 1, 3, 4)
    whole, parts = Tally.of([[maps]]), [Tally.of([[part]]) for part in maps.split(4)]
    total = sum(parts, Tally())
    assert total.images == whole.images and total.lowest == whole.lowest
    torch.testing.assert_close(total.sums, whole.sums)


def test_every_image_is_scored_by_the_means_of_others(calib_model: Any, calib_data: kd.data.Splits) -> None:
    detector = tiny.calibrated(calib_model, calib_data.calib, maps="normal")
    assert detector.threshold.n == len(calib_data.calib) == 8 and detector.normal is not None
    x = torch.stack([calib_data.calib[i]["image"] for i in range(8)])
    with torch.no_grad():
        levels = calib_model.level_maps(x)
    means = [level.mean(0, keepdim=True) for level in levels]
    torch.testing.assert_close(detector.normal.means(), means, rtol=1e-4, atol=1e-6)
    scores = []
    for i in range(8):
        others = [j for j in range(8) if j % 5 != i % 5]
        normal = NormalMaps([level[others].mean(0, keepdim=True) for level in levels])
        amap = calib_model.fuse(normal([level[i : i + 1] for level in levels]), x.shape[-2:], "product")
        scores.append(float(calib_model.image_score(amap)))
    assert detector.threshold.value == pytest.approx(max(scores), rel=1e-4)


def test_the_promise_holds_on_fresh_images() -> None:
    """Threshold scores of a hundred sets of normal maps are exceeded by fresh ones as often as is promised."""
    torch.manual_seed(0)
    place, exceeded = torch.rand(1, 1, 6, 6) + 0.5, []
    for _ in range(100):
        calib, fresh = (torch.empty(n, 1, 6, 6).exponential_() * place for n in (19, 50))
        parts = [calib[first::5] for first in range(5)]
        tallies = [Tally.of([[part]]) for part in parts]
        scores = []
        for i, part in enumerate(parts):
            others = sum(tallies[:i] + tallies[i + 1 :], Tally())
            scores.append(NormalMaps.fit(others)([part])[0].amax((1, 2, 3)))
        limit = kd.scoring.calibration.threshold(torch.cat(scores).numpy(), 0.9)
        final = NormalMaps.fit(sum(tallies, Tally()))([fresh])[0].amax((1, 2, 3))
        exceeded.append(limit.decide(final.numpy()).mean())
    assert np.mean(exceeded) <= 0.1 + 0.02


def test_the_likelihood_of_dhkd_can_be_measured(calib_data: kd.data.Splits) -> None:
    torch.manual_seed(0)
    model = tiny.build("dhkd", backbone="resnet18", weights="random", score="likelihood", steps=2)
    tiny.fit(model, calib_data.train)
    detector = tiny.calibrated(model, calib_data.calib, maps="normal")
    assert detector.normal is not None and max(detector.normal.bases) < 0
    assert np.isfinite(kd.evaluate(detector, calib_data.calib, device="cpu").scores).all()


def test_plain_calibration_is_what_it_was(calib_model: Any, calib_data: kd.data.Splits) -> None:
    detector = tiny.calibrated(calib_model, calib_data.calib)
    result = kd.evaluate(calib_model, calib_data.calib, device="cpu", precision="fp32")
    assert detector.normal is None and detector.threshold.n == len(calib_data.calib)
    assert detector.threshold.value == float(np.sort(result.scores)[-1])
    x = calib_data.test[0]["image"][None]
    with torch.no_grad():
        assert torch.equal(detector.anomaly_map(x), calib_model.anomaly_map(x))


def test_calibration_refuses(calib_model: Any, calib_data: kd.data.Splits) -> None:
    with pytest.raises(ValueError, match="3 calibration images; maps='normal' needs 4"):
        tiny.calibrated(calib_model, calib_data.calib.subset(range(3)), maps="normal")
    with pytest.raises(ValueError, match="maps is 'fancy'; expected one of plain, normal, whitened"):
        tiny.calibrated(calib_model, calib_data.calib, maps="fancy")


def test_normal_maps_move_and_are_saved(calib_model: Any, calib_data: kd.data.Splits, tmp_path: Path) -> None:
    detector = tiny.calibrated(calib_model, calib_data.calib, maps="normal")
    assert [n for n, _ in detector.named_buffers() if n.startswith("normal.")] == [
        f"normal.mean_{level}" for level in range(3)
    ]
    assert not detector.train().model.training
    loaded = kd.load(kd.save(detector, tmp_path))
    image = torch.rand(3, 64, 64)
    verdicts = [kd.score(one, image, device="cpu") for one in (detector, loaded)]
    assert np.array_equal(verdicts[0].maps, verdicts[1].maps)
    assert {b.dtype for n, b in loaded.to(torch.float64).named_buffers() if "mean_" in n} == {torch.float64}
    assert {b.device.type for n, b in loaded.to("meta").named_buffers() if "mean_" in n} == {"meta"}


def test_a_detector_is_exported_with_its_normal_maps(calib_model: Any, calib_data: kd.data.Splits) -> None:
    detector = tiny.calibrated(calib_model, calib_data.calib, maps="normal")
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        exported = torch.export.export(detector, (x,), strict=False)
        torch.testing.assert_close(exported.module()(x), detector(x), rtol=1e-4, atol=1e-6)
