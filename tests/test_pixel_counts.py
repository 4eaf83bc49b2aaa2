"""Pixels counted in runs, in memory or in files, give the metrics of all pixels at once."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from kdlib.scoring import pixel_counts
from kdlib.scoring.metrics import aupro, count, counts_metrics, pixel_metrics, pro_curve
from kdlib.scoring.pixel_counts import PixelCounts


def scene(images: int = 12, side: int = 32, decimals: int = 8) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    rng = np.random.default_rng(0)
    masks = np.zeros((images, side, side), dtype=bool)
    masks[::2, 2:9, 3:8] = masks[::2, 14:16, 15:20] = masks[4, 20:30, 20:30] = True
    maps = rng.normal(size=masks.shape) + 1.2 * masks * rng.uniform(size=masks.shape)
    return maps.round(decimals).astype(np.float32), masks


@pytest.fixture
def short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and blocks so short that a small scene needs many of them."""
    for name, value in {"GOOD_RUN": 500, "DEFECT_RUN": 60, "BLOCK": 32, "_STRIDE": 8}.items():
        monkeypatch.setattr(pixel_counts, name, value)


@pytest.mark.parametrize("memory", [0, 3000, 2**28], ids=["files", "both", "memory"])
@pytest.mark.parametrize("decimals", [8, 1, 0], ids=["distinct", "ties", "heavy-ties"])
def test_runs_and_files_change_nothing(memory: int, decimals: int, short_runs: None) -> None:
    maps, masks = scene(decimals=decimals)
    counts = PixelCounts(memory)
    for amap, mask in zip(maps, masks, strict=True):
        counts.add(amap, mask)
    found = counts_metrics(counts)
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()), abs=1e-12)
    assert counts_metrics(counts) == found  # a second pass over the same runs
    assert found["aupro"] == pytest.approx(aupro(maps, masks), abs=1e-12)


def test_short_runs_draw_the_same_curve(request: pytest.FixtureRequest) -> None:
    maps, masks = scene(decimals=1)
    whole, found = pro_curve(maps, masks), pixel_metrics(maps, masks)
    request.getfixturevalue("short_runs")
    fpr, pro = pro_curve(maps, masks)
    assert np.interp(np.linspace(0, 0.3, 50), fpr, pro) == pytest.approx(np.interp(np.linspace(0, 0.3, 50), *whole))
    assert (fpr[-1], pro[-1]) == pytest.approx((whole[0][-1], whole[1][-1]))
    assert pixel_metrics(maps, masks) == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("value", [0.0, 3.5, -2.0])
def test_one_score_for_all_pixels(value: float, short_runs: None) -> None:
    maps, masks = scene()
    found = pixel_metrics(np.full_like(maps, value), masks)
    assert found == pytest.approx({"pixel_auroc": 0.5, "pixel_ap": masks.mean(), "aupro": 0.15})


def test_zero_has_one_sign(short_runs: None) -> None:
    maps, masks = scene()
    signed = np.where(maps > 0, 0.0, -0.0).astype(np.float32)
    assert pixel_metrics(signed, masks) == pytest.approx(pixel_metrics(np.zeros_like(maps), masks))


def test_what_is_in_memory_at_a_time_is_bounded(short_runs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    maps, masks = scene(images=40)
    counts, mapped = PixelCounts(0), []
    plain = np.memmap

    def watched(*arguments: Any, **options: Any) -> NDArray[Any]:
        mapped.append(plain(*arguments, **options))
        return mapped[-1]

    monkeypatch.setattr(pixel_counts.np, "memmap", watched)
    for amap, mask in zip(maps, masks, strict=True):
        counts.add(amap, mask)
    blocks = list(counts.thresholds())
    assert len(blocks) > 10 and sum(run.size for run in mapped) > 0.95 * maps.size
    assert max(block.pixels.size for block in blocks) < 300
    assert sum(int(block.pixels.sum()) for block in blocks) == masks.sum() == counts.defect
    assert sum(float(block.share.sum()) for block in blocks) == pytest.approx(1)


def test_a_full_disc_is_named(short_runs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, *_: object) -> None:
            raise OSError(28, "No space left on device")

        def fileno(self) -> int:
            raise OSError(28, "No space left on device")

        flush = seek = tell = write

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: nullcontext(Full()))
    maps, masks = scene()
    with pytest.raises(OSError, match=r"no room for .* set TMPDIR"):
        counts = PixelCounts(0)
        for amap, mask in zip(maps, masks, strict=True):
            counts.add(amap, mask)


def test_counting_knows_which_image_is_wrong() -> None:
    maps, masks = scene()
    maps[3, 2, 1] = np.inf
    with pytest.raises(ValueError, match="image 3: scores of the map: 1 of 1024 are NaN or infinite"):
        count(maps, masks)
