from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from kdlib.scoring.metrics import aupro, chance, image_metrics, pixel_metrics, pro_curve

LABELS = np.array([0, 0, 0, 1, 1])


def scene(seed: int = 0, images: int = 4, side: int = 24) -> tuple[NDArray, NDArray]:
    """Noise, higher in the defects; two defects of different size in every second image."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((images, side, side), dtype=bool)
    masks[::2, 2:9, 3:8] = masks[::2, 14:16, 15:20] = True
    return rng.normal(size=masks.shape) + 1.2 * masks * rng.uniform(size=masks.shape), masks


@pytest.mark.parametrize(
    ("scores", "auroc", "ap", "f1max"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1, 1, 1),
        ([5, 4, 3, 2, 1], 0, (1 / 4 + 2 / 5) / 2, 4 / 7),
        ([7, 7, 7, 7, 7], 0.5, 0.4, 4 / 7),
        ([1, 2, 4, 3, 5], 5 / 6, (1 + 2 / 3) / 2, 4 / 5),
    ],
    ids=["perfect", "inverted", "constant", "one-mistake"],
)
def test_image_metrics_by_hand(scores: list[float], auroc: float, ap: float, f1max: float) -> None:
    expected = {"image_auroc": auroc, "image_ap": ap, "image_f1max": f1max}
    assert image_metrics(np.array(scores), LABELS) == pytest.approx(expected)


def test_image_metrics_of_random_scores_are_near_chance() -> None:
    rng = np.random.default_rng(0)
    labels = rng.uniform(size=20_000) < 0.3
    assert image_metrics(rng.normal(size=labels.size), labels) == pytest.approx(chance(labels), abs=0.015)


def test_f1max_is_the_best_over_every_threshold() -> None:
    rng = np.random.default_rng(1)
    labels = rng.uniform(size=60) < 0.4
    scores = (rng.normal(size=60) + labels).round(1)
    decisions = [scores >= threshold for threshold in np.unique(scores)]
    best = max(2 * np.sum(found & labels) / (found.sum() + labels.sum()) for found in decisions)
    assert image_metrics(scores, labels)["image_f1max"] == pytest.approx(best)


def test_chance_is_what_constant_scores_get() -> None:
    assert chance(LABELS) == pytest.approx(image_metrics(np.ones(5), LABELS))
    assert chance(np.repeat([True, False], [729, 271]))["image_f1max"] == pytest.approx(0.843, abs=5e-4)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0, 2.0], [0, 1, 1], "one per image"),
        ([1.0, np.nan], [0, 1], "1 of 2 are NaN or infinite"),
        ([1.0, np.inf], [0, 1], "NaN or infinite"),
        ([1.0, 2.0], [0, 0], "0 anomalous among 2"),
        ([1.0, 2.0], [1, 1], "2 anomalous among 2"),
        ([1.0, 2.0], [0, 255], "0 .normal. and 1 .anomalous."),
        ([], [], "add the missing class"),
        ([[1.0, 2.0]], [[0, 1]], r"expected \[N\]"),
    ],
)
def test_image_metrics_refuse(scores: list, labels: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_metrics(np.array(scores), np.array(labels))


def test_pixel_metrics_of_perfect_inverted_and_constant_maps() -> None:
    _, masks = scene()
    share = masks.mean()
    assert pixel_metrics(masks.astype(float), masks) == pytest.approx({"pixel_auroc": 1, "pixel_ap": 1, "aupro": 1})
    inverted = {"pixel_auroc": 0, "pixel_ap": share, "aupro": 0}
    assert pixel_metrics(1 - masks.astype(float), masks) == pytest.approx(inverted)
    constant = {"pixel_auroc": 0.5, "pixel_ap": share, "aupro": 0.15}
    assert pixel_metrics(np.full(masks.shape, 3.0), masks) == pytest.approx(constant)


def test_pixel_metrics_of_random_maps() -> None:
    _, masks = scene(images=60, side=64)
    metrics = pixel_metrics(np.random.default_rng(0).normal(size=masks.shape), masks)
    assert metrics == pytest.approx({"pixel_auroc": 0.5, "pixel_ap": masks.mean(), "aupro": 0.15}, abs=0.02)


def test_single_pixel_defect() -> None:
    maps = np.arange(100.0).reshape(1, 10, 10)
    mask = maps == 89  # ten of the 99 good pixels lie above it
    expected = {"pixel_auroc": 89 / 99, "pixel_ap": 1 / 11, "aupro": (0.3 - 10 / 99) / 0.3}
    assert pixel_metrics(maps, mask) == pytest.approx(expected)


def test_every_region_counts_the_same() -> None:
    masks = np.zeros((1, 20, 20), dtype=bool)
    masks[0, :10, :10] = masks[0, 15, 15] = True
    small, large = np.zeros(masks.shape), np.zeros(masks.shape)
    small[0, 15, 15] = large[0, :10, :10] = 1
    # One region is found at once; the other one's pixels tie with all good ones, and half of 0.3 is half of it.
    assert aupro(small, masks) == pytest.approx(0.5 + 0.5 * 0.15)
    assert aupro(large, masks) == pytest.approx(aupro(small, masks))


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    masks = np.zeros((1, 12, 12), dtype=bool)
    for row in (0, 10):  # a diagonal pair in each corner, falling on the left, rising on the right
        masks[0, row, 0] = masks[0, row + 1, 1] = masks[0, row, 11] = masks[0, row + 1, 10] = True
    masks[0, 6, 6] = True
    maps = np.zeros(masks.shape)
    maps[0, 6, 6] = 1
    # Five regions, not nine: one found at once, four tied with the background.
    assert aupro(maps, masks) == pytest.approx(1 / 5 + 4 / 5 * 0.15)


def test_regions_do_not_join_across_images() -> None:
    masks = np.zeros((2, 6, 6), dtype=bool)
    masks[0, 2:5, 2:5] = masks[1, 2, 2] = True
    maps = np.zeros(masks.shape)
    maps[1, 2, 2] = 1
    assert aupro(maps, masks) == pytest.approx(0.5 + 0.5 * 0.15)


def test_pixels_of_normal_images_count_as_good() -> None:
    maps, masks = scene(4, images=2)
    calm, wild = maps.copy(), maps.copy()
    calm[1], wild[1] = -9, 9
    assert aupro(calm, masks) > aupro(maps, masks) > aupro(wild, masks)


def test_monotone_transforms_change_nothing() -> None:
    maps, masks = scene(5)
    before, after = pixel_metrics(maps, masks), pixel_metrics(np.exp(5 * maps), masks)
    assert after == pytest.approx(before, abs=1e-12)
    labels = np.array([0, 1, 0, 1])
    scores = np.array([0.1, 0.4, 0.3, 0.2])
    assert image_metrics(np.exp(5 * scores), labels) == image_metrics(scores, labels)


def test_pro_curve_is_the_curve_under_which_aupro_lies() -> None:
    maps, masks = scene(6)
    for scores in (maps, maps.round(1), maps.round(0)):
        fpr, pro = pro_curve(scores, masks)
        assert (fpr[0], pro[0], fpr[-1]) == (0, 0, 0.3)
        assert np.all(np.diff(fpr) >= 0) and np.all(np.diff(pro) >= 0) and pro[-1] <= 1
        area = np.sum(np.diff(fpr) * (pro[1:] + pro[:-1]) / 2) / 0.3
        assert area == pytest.approx(aupro(scores, masks), abs=1e-12)
    fpr, pro = pro_curve(maps, masks, limit=1.0)
    assert (fpr[-1], pro[-1]) == (1, pytest.approx(1))


def test_maps_of_different_sizes() -> None:
    maps, masks = scene(7)
    rows = [
        pair for image in zip(maps, masks, strict=True) for pair in ([a[:12] for a in image], [a[12:] for a in image])
    ]
    halves, half_masks = [pair[0] for pair in rows], [pair[1] for pair in rows]
    halves[0], half_masks[0] = halves[0][:, :20], half_masks[0][:, :20]  # cut off good pixels only
    smaller = pixel_metrics(halves, half_masks)
    assert smaller == pytest.approx(pixel_metrics(maps, masks), abs=0.05)
    uncut = [maps[0][:12], *halves[1:]], [masks[0][:12], *half_masks[1:]]
    assert pixel_metrics(*uncut) == pytest.approx(pixel_metrics(maps, masks), abs=1e-12)


@pytest.mark.parametrize("high", [1, 255, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_masks_may_be_whole_numbers(high: int, dtype: type) -> None:
    maps, masks = scene(8)
    assert pixel_metrics(maps, (high * masks.astype(int)).astype(dtype)) == pixel_metrics(maps, masks)
    assert pixel_metrics(maps, masks.astype(np.float32)) == pixel_metrics(maps, masks)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_narrow_maps_give_what_float64_gives(dtype: type) -> None:
    maps, masks = scene(9)
    narrow = maps.astype(dtype)
    assert pixel_metrics(narrow, masks) == pixel_metrics(narrow.astype(np.float64), masks)


def test_inputs_are_left_alone() -> None:
    maps, masks = scene(10)
    kept = maps.copy(), masks.copy()
    pixel_metrics(maps, masks), aupro(maps, masks)
    assert np.array_equal(maps, kept[0]) and np.array_equal(masks, kept[1])


@pytest.mark.parametrize("metric", [pixel_metrics, aupro, pro_curve])
def test_pixel_metrics_refuse(metric) -> None:
    maps, masks = scene()
    broken = maps.copy()
    broken[2, 3, 4] = np.nan
    with pytest.raises(ValueError, match="image 2: scores of the map: 1 of 576 are NaN or infinite"):
        metric(broken, masks)
    with pytest.raises(ValueError, match="4 maps and 3 masks"):
        metric(maps, masks[:3])
    with pytest.raises(ValueError, match=r"image 0: the map has shape \(24, 24\), the mask \(12, 12\)"):
        metric(maps, masks[:, ::2, ::2])
    with pytest.raises(ValueError, match=r"drop a channel axis with maps\[:, 0\]"):
        metric(maps[:, None], masks[:, None])
    with pytest.raises(ValueError, match="no defective pixel in 4 masks"):
        metric(maps, np.zeros_like(masks))
    with pytest.raises(ValueError, match="no defect-free pixel"):
        metric(maps, np.ones_like(masks))
    with pytest.raises(ValueError, match="resize masks with 'nearest'"):
        metric(maps, masks * 0.5)
    with pytest.raises(ValueError, match="no defective pixel in 0 masks"):
        metric([], [])


@pytest.mark.parametrize("limit", [0, -0.1, 1.5, float("nan")])
def test_aupro_refuses_a_limit_that_is_no_rate(limit: float) -> None:
    with pytest.raises(ValueError, match="expected a false-positive rate"):
        aupro(*scene(), limit=limit)
