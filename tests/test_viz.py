"""Figures: names of any script are drawn as they are, without warnings; examples come from what was kept."""

from __future__ import annotations

import base64
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch import Tensor

import kdlib as kd
from kdlib import lettering, png, viz
from kdlib.scoring.calibration import threshold

ODD = ["a$^$b", "$x_1$", "one $ only", "汚れ", "царапина", "خدش", "broken\udcff", "back\\slash", "^_{", "☃ 🙂"]


class Brightness:
    def anomaly_map(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)

    def image_score(self, amap: Tensor) -> Tensor:
        return amap.flatten(1).amax(1)


@pytest.fixture
def seen(tmp_path: Path) -> tuple[kd.Result, kd.data.ImageSet, kd.Detector]:
    """A result whose defects have odd names, its images, and something with a threshold and a scale."""
    data = tiny.data(tmp_path, size=(24, 32))
    result = kd.evaluate(Brightness(), data.test, device="cpu", precision="fp32")
    samples = [replace(s, defect=ODD[i]) if s.label else s for i, s in enumerate(result.samples)]
    result = replace(result, samples=tuple(samples))
    model = tiny.build("stpm", backbone="resnet18", weights="random")
    detector = kd.Detector(model, (24, 32), threshold([0.1, 0.2]), viz.Scale(low=0.0, high=1.0))
    return result, data.test, detector


def drawn(figure: Figure) -> tuple[list[str], bytes]:
    """All texts of a figure and its picture, drawn without a single warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = png.png(figure)
    return [text.get_text() for text in figure.findobj(Text)], picture


def test_odd_names_are_drawn_without_warnings() -> None:
    lines = {name: ([0, 1], [1, 2]) for name in ODD}
    for figure in (
        viz.contact_sheet([np.zeros((4, 4, 3))] * len(ODD), ODD),
        viz.map_sheet([np.eye(4)] * len(ODD), ODD),
        viz.curves(lines, xlabel=" ".join(ODD), ylabel="".join(ODD), title=ODD[0]),
    ):
        texts, _ = drawn(figure)
        assert {lettering.name(name) for name in ODD} <= set(texts)
        data, metadata = png.bundle(figure)
        json.dumps([data, metadata]).encode()
        assert metadata["image/png"]["alt"].encode()
        assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).size[0] > 100


@pytest.mark.parametrize("make", [viz.gallery, lambda r, i, d: viz.portrait(r, i, d, 2)], ids=["gallery", "portrait"])
def test_galleries_and_portraits_draw_odd_defects(
    make: Callable[..., Figure], seen: tuple[kd.Result, kd.data.ImageSet, kd.Detector]
) -> None:
    texts, _ = drawn(make(*seen))
    assert any(r"\$" in text or "<U+" in text or "汚" in text for text in texts)


def test_a_dollar_sign_is_no_mathematics() -> None:
    def picture(title: str) -> bytes:
        return drawn(viz.contact_sheet([np.zeros((4, 4, 3))], [title], alt="same"))[1]

    assert lettering.name("a$^$b") == r"a\$^\$b"
    assert picture("$xx$") != picture("xx")
    plain = drawn(viz.contact_sheet([np.zeros((4, 4, 3))], ["crack"], alt="same"))[1]
    assert plain == picture("crack")


def test_what_no_font_has_is_spelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "_signs", lambda: frozenset(map(ord, "abc é")))
    assert lettering.spelled("é 汚\udcff a\n") == "é <U+6C5A><U+DCFF> a\n"


def test_a_gallery_shows_what_was_kept(seen: tuple[kd.Result, kd.data.ImageSet, kd.Detector]) -> None:
    _, images, detector = seen
    result = kd.evaluate(Brightness(), images, keep=[5, 1], device="cpu", precision="fp32")
    texts, _ = drawn(viz.gallery(result, images, detector))
    assert texts.count("normal") + texts.count("anomalous") + sum("\n" in t for t in texts) >= 2
    with pytest.raises(ValueError, match="the map of image 0 was not kept"):
        viz.gallery(result, images, detector, chosen=[0])


def test_figures_are_part_of_the_surface() -> None:
    assert kd.viz is viz
    with pytest.raises(AttributeError, match="no attribute 'figures'"):
        _ = kd.figures


def test_maps_that_were_not_kept_are_not_drawn(seen: tuple[kd.Result, kd.data.ImageSet, kd.Detector]) -> None:
    result, images, detector = seen
    with pytest.raises(ValueError, match="no maps were kept"):
        viz.gallery(kd.evaluate(Brightness(), images, keep="none"), images, detector)
    few = replace(result, kept=result.kept[1:3], kept_maps=result.kept_maps[1:3], kept_masks=result.kept_masks[1:3])
    assert len(viz.gallery(few, images, detector).axes) >= 2 * 3


def test_losses_of_the_second_phase_begin_where_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Figure] = []
    monkeypatch.setattr(viz.LiveCurve, "_display", lambda self, figure: shown.append(figure))
    rows = [{"phase": "one", "step": 1, "total": 3.0}, {"phase": "two", "step": 1, "total": 2.0, "other": 1.0}]
    viz.LiveCurve(2)(kd.History(rows=rows, runtime="cpu, fp32"))
    assert {line.get_label(): list(line.get_xdata()) for line in shown[0].axes[0].lines} == {
        "total": [1, 2],
        "other": [2],
    }
