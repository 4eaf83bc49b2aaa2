"""What only a GPU can show; skipped without one. All of it, with one: `python -m pytest -m cuda`."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

import kdlib as kd
from kdlib.methods import METHODS

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore:.*RANDOM:UserWarning"),
]


@pytest.fixture(params=METHODS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_loss_falls(name: str, precision: str, tmp_path: Path) -> None:
    history = tiny.fit(tiny.build(name, steps=20), tiny.normal(tmp_path), device="cuda", precision=precision)
    assert history.runtime == f"cuda, {precision}"
    for phase in dict.fromkeys(row["phase"] for row in history.rows):
        totals = [row["total"] for row in history.rows if row["phase"] == phase]
        assert sum(totals[-3:]) / 3 < 0.9 * totals[0], (phase, totals)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_killed_run_goes_on(name: str, precision: str, tmp_path: Path) -> None:
    images, where = tiny.normal(tmp_path / "images"), {"device": "cuda", "precision": precision}
    whole = tiny.fit(tiny.build(name, steps=6), images, **where).losses()
    with pytest.raises(tiny.KilledError):
        tiny.fit(
            tiny.build(name, steps=6), images, state=tmp_path / "run", save_every=0, on_step=tiny.killer(4), **where
        )
    assert tiny.fit(tiny.build(name, steps=6), images, state=tmp_path / "run", **where).losses() == pytest.approx(
        whole, rel=2e-2
    )


def test_calibrated_saved_loaded_and_scored(name: str, tmp_path: Path) -> None:
    data, model = tiny.data(tmp_path / "data"), tiny.build(name)
    tiny.fit(model, data.train, device="cuda", precision="fp32")
    detector = kd.calibrate(model, data.calib, device="cuda", precision="fp32")
    loaded = kd.load(kd.save(detector, tmp_path / "saved"))
    picture = torch.rand(2, 3, 64, 64)
    there, here = (kd.score(loaded, picture, device=device, precision="fp32").scores for device in ("cuda", "cpu"))
    assert there == pytest.approx(here, rel=2e-2)
    result = kd.evaluate(loaded, data.test, device="cuda", precision="fp32")
    assert 0 <= result.metrics()["image_auroc"] <= 1


@pytest.mark.parametrize(("method", "backbone"), [("rd/mvtec", "wide_resnet50_2"), ("stpm/mvtec", "resnet18")])
def test_a_step_at_paper_scale(method: str, backbone: str, tmp_path: Path) -> None:
    images = tiny.normal(tmp_path, 16, size=256)
    model = kd.build(method, backbone=backbone, weights="random", steps=3)
    history = tiny.fit(model, images, device="cuda", precision="auto")
    assert len(history.rows) == 3 and torch.cuda.max_memory_allocated() < 20 * 2**30
    amap = model.anomaly_map(torch.rand(2, 3, 256, 256, device="cuda").to(memory_format=torch.channels_last))
    assert amap.shape == (2, 1, 256, 256) and torch.isfinite(amap).all()
