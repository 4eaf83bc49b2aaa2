from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, asdict, replace

import numpy as np
import pytest

from kdlib.scoring.calibration import Scale, Threshold, display_scale, needed, threshold


@pytest.mark.parametrize(("n", "quantile", "rank"), [(19, 0.95, 19), (99, 0.95, 95), (100, 0.95, 96), (9, 0.5, 5)])
def test_threshold_is_the_order_statistic(n: int, quantile: float, rank: int) -> None:
    scores = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
    found = threshold(scores, quantile)
    assert (found.value, found.n, found.quantile) == (rank, n, quantile)
    assert found.false_alarms == pytest.approx((n + 1 - rank) / (n + 1))
    assert found.false_alarms <= 1 - quantile + 1e-12


@pytest.mark.parametrize("n", [20, 199])
def test_promised_false_alarms_hold_in_simulation(n: int) -> None:
    rng = np.random.default_rng(n)
    # For uniform scores the true false-alarm rate of a threshold is what lies above it.
    found = [threshold(rng.uniform(size=n), 0.9) for _ in range(800)]
    true = np.array([1 - one.value for one in found])
    assert true.mean() == pytest.approx(found[0].false_alarms, abs=4 * true.std() / np.sqrt(true.size))
    covered = np.mean([one.low <= rate <= one.high for one, rate in zip(found, true, strict=True)])
    assert covered == pytest.approx(0.95, abs=0.02)


def test_more_images_narrow_the_interval() -> None:
    few, many = (threshold(np.arange(float(n)), 0.95) for n in (30, 300))
    assert many.high - many.low < (few.high - few.low) / 2


def test_too_few_images_take_the_maximum_and_say_so() -> None:
    found = threshold([0.3, 0.1, 0.2], 0.95)
    assert found.value == 0.3
    assert found.false_alarms == pytest.approx(1 / 4)
    assert "needs 19 images" in str(found)
    assert "needs" not in str(threshold(np.arange(19.0), 0.95))
    assert threshold([0.7]).value == 0.7


def test_needed_is_where_the_promise_starts() -> None:
    assert [needed(quantile) for quantile in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]
    for quantile in (0.5, 0.8, 0.9, 0.95, 0.99, 0.995, 0.123):
        enough = needed(quantile)
        assert threshold(np.arange(float(enough)), quantile).false_alarms <= 1 - quantile + 1e-9
        assert enough == 1 or 1 / enough > 1 - quantile + 1e-9  # one image fewer promises less, even at the maximum


def test_ties_only_lower_the_rate() -> None:
    scores = np.random.default_rng(1).integers(0, 4, size=200)
    found = threshold(scores, 0.9)
    assert np.mean(found.decide(scores)) <= found.false_alarms


def test_a_score_equal_to_the_threshold_is_normal() -> None:
    found = threshold([1.0, 2.0, 3.0], 0.5)
    assert found.decide([1.9, 2.0, 2.1]).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("scores", "quantile", "message"),
    [
        ([], 0.95, "calib scores are empty"),
        ([1.0, np.nan], 0.95, "1 of 2 are NaN or infinite"),
        ([1.0, np.inf], 0.95, "NaN or infinite"),
        ([[1.0], [2.0]], 0.95, r"shape \(2, 1\)"),
        ([1.0], 0.0, "quantile is 0.0"),
        ([1.0], 1.0, "quantile is 1.0"),
        ([1.0], 95, "between 0 and 1"),
    ],
)
def test_threshold_refuses(scores: list, quantile: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        threshold(np.array(scores), quantile)


def test_scale_keeps_normal_images_dark_and_defects_light() -> None:
    rng = np.random.default_rng(0)
    maps = rng.gamma(2.0, size=(5, 64, 64))
    scale = display_scale(maps)
    shown = scale.apply(rng.gamma(2.0, size=(64, 64)))
    assert np.median(shown) == pytest.approx(0, abs=0.02)
    assert np.mean(shown > 0.5) == pytest.approx(0.001, abs=0.0015)
    assert scale.apply(np.quantile(maps, 0.999)) == pytest.approx(0.5)
    assert scale.apply(3 * maps.max()) == 1


def test_scale_is_monotone_and_the_same_for_every_image() -> None:
    scale = display_scale(np.random.default_rng(1).normal(size=(3, 16, 16)))
    scores = np.linspace(-10, 10, 500)
    shown = scale.apply(scores)
    assert np.all(np.diff(shown) >= 0) and shown.min() == 0 and shown.max() == 1
    pair = np.stack([np.full((4, 4), 0.5), np.full((4, 4), 1.0)])
    assert np.array_equal(scale.apply(pair)[0], scale.apply(pair[0]))  # an image's neighbours do not matter
    assert scale.apply(pair)[0].max() < scale.apply(pair)[1].min()


def test_scale_takes_maps_of_different_sizes() -> None:
    values = np.random.default_rng(2).normal(size=100)
    assert display_scale([values[:40].reshape(5, 8), values[40:].reshape(6, 10)]) == display_scale(values[None, None])


@pytest.mark.parametrize("level", [0.0, 3.5, -2e6])
def test_scale_without_spread(level: float) -> None:
    scale = display_scale(np.full((2, 4, 4), level))
    assert scale.low < scale.high
    assert scale.apply([level - 1, level, level + 1]).tolist() == [0, 0, 1]


def test_scale_refuses() -> None:
    with pytest.raises(ValueError, match="calib maps are empty"):
        display_scale([])
    with pytest.raises(ValueError, match="1 of 8 are NaN or infinite"):
        display_scale(np.array([[[0.0, 1.0], [np.nan, 2.0]]] * 1 + [[[0.0, 1.0], [2.0, 2.0]]]))


def test_both_survive_json_and_cannot_be_changed() -> None:
    found, scale = threshold(np.float32([0.1, 0.2, 0.3])), display_scale(np.eye(4, dtype=np.float32)[None])
    assert Threshold(**json.loads(json.dumps(asdict(found)))) == found
    assert Scale(**json.loads(json.dumps(asdict(scale)))) == scale
    with pytest.raises(FrozenInstanceError):
        scale.low = 0.0  # type: ignore[misc]


@pytest.mark.parametrize("value", [np.nan, np.inf, "high", None, True])
def test_a_threshold_that_decides_nothing_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="value is"):
        replace(threshold([1.0, 2.0]), value=value)  # type: ignore[arg-type]


def test_a_score_that_is_no_number_is_not_called_normal() -> None:
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        threshold([1.0, 2.0]).decide([0.5, np.nan])


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (np.nan, 1.0), (0.0, np.inf)])
def test_a_scale_without_extent_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match=r"low|high"):
        Scale(low=low, high=high)
