from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import average_precision_score, roc_auc_score

from kdlib.scoring.metrics import aupro, image_metrics, pixel_metrics

REFERENCE = Path(__file__).parent / "reference" / "metrics.npz"


def brute_force(maps: NDArray, masks: NDArray, limit: float = 0.3) -> float:
    """AUPRO as its definition reads: one pass over all pixels for every distinct score."""
    regions = []
    for index, mask in enumerate(masks):
        found, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [maps[index][found == k] for k in range(1, count + 1)]
    fpr, pro = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        fpr.append(np.mean(maps[~masks] >= threshold))
        pro.append(np.mean([np.mean(region >= threshold) for region in regions]))
    inside = np.array(fpr) <= limit
    x, y = np.append(np.array(fpr)[inside], limit), np.append(np.array(pro)[inside], np.interp(limit, fpr, pro))
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / limit)


def scene(seed: int = 0, images: int = 4, side: int = 24) -> tuple[NDArray, NDArray]:
    """Noise, higher in the defects; two defects of different size in every second image."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((images, side, side), dtype=bool)
    masks[::2, 2:9, 3:8] = masks[::2, 14:16, 15:20] = True
    return rng.normal(size=masks.shape) + 1.2 * masks * rng.uniform(size=masks.shape), masks


def test_metrics_agree_with_published_implementations() -> None:
    with np.load(REFERENCE) as reference:
        pixel = pixel_metrics(reference["maps"], reference["masks"])
        image = image_metrics(reference["scores"], reference["labels"])
        alone = aupro(reference["maps"], reference["masks"])
        expected = {key: float(reference[key]) for key in ("pixel_auroc", "pixel_ap", "image_auroc", "image_ap")}
        expected["aupro"] = float(reference["aupro_03"])
    found = {**pixel, **image}
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    assert alone == pytest.approx(expected["aupro"], abs=1e-6)


@pytest.mark.parametrize("decimals", [8, 1, 0], ids=["distinct", "ties", "heavy-ties"])
@pytest.mark.parametrize("seed", [0, 1])
def test_aupro_equals_brute_force(decimals: int, seed: int) -> None:
    maps, masks = scene(seed)
    maps = maps.round(decimals)
    expected = brute_force(maps, masks)
    assert aupro(maps, masks) == pytest.approx(expected, abs=1e-12)
    assert pixel_metrics(maps, masks)["aupro"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("limit", [0.001, 0.05, 0.5, 1.0])
def test_aupro_equals_brute_force_for_other_limits(limit: float) -> None:
    maps, masks = scene(2, images=2)
    for scores in (maps, maps.round(0), np.where(masks, maps, maps.round(0))):
        assert aupro(scores, masks, limit) == pytest.approx(brute_force(scores, masks, limit), abs=1e-12)


@pytest.mark.parametrize("ties", [1, 2, 3])
def test_aupro_is_exact_wherever_the_limit_falls(ties: int) -> None:
    maps = np.arange(40, 0, -1.0).reshape(1, 1, 40) // ties
    masks = (np.arange(40) % 2 == 1).reshape(maps.shape)  # good and defective pixels take turns
    for limit in np.linspace(0.01, 1, 100):
        assert aupro(maps, masks, limit) == pytest.approx(brute_force(maps, masks, limit), abs=1e-12)


@pytest.mark.parametrize("decimals", [8, 1, 0])
def test_pixel_auroc_and_ap_equal_those_of_all_pixels(decimals: int) -> None:
    maps, masks = scene(3)
    maps = maps.round(decimals)
    metrics = pixel_metrics(maps, masks)
    assert metrics.keys() == {"pixel_auroc", "pixel_ap", "aupro"}
    assert metrics["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert metrics["pixel_ap"] == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()), abs=1e-12)


def test_exact_aupro_is_faster_than_two_hundred_thresholds() -> None:
    maps, masks = scene(11, images=30, side=128)

    def seconds(run) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    def sampled() -> None:
        regions = [ndimage.label(mask, np.ones((3, 3))) for mask in masks]
        for threshold in np.linspace(maps.min(), maps.max(), 200):
            np.mean(maps[~masks] > threshold)
            [ndimage.mean(m > threshold, r, np.arange(1, k + 1)) for m, (r, k) in zip(maps, regions, strict=True) if k]

    assert min(seconds(lambda: aupro(maps, masks)) for _ in range(3)) < seconds(sampled) / 2
