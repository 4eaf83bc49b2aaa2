"""Pictures of features: what is drawn, of which level and channels, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import dataset_trees as trees
import numpy as np
import pytest
import tiny
import torch
from matplotlib.figure import Figure
from PIL import Image

import kdlib as kd
from kdlib import feature_sheet, png
from kdlib.contract import Distiller
from kdlib.course import widgets


def titles(figure: Figure) -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png.png(figure)
    return [axis.get_title() for axis in figure.axes if axis.get_title()]


def test_a_picture_says_what_it_shows(detector: kd.Detector, tmp_path: Path) -> None:
    image = trees.picture(tmp_path / "a$b.png", (40, 20))
    figure = kd.viz.features(detector, image, level=1, channels=3, title=image.name)
    shown = titles(figure)
    assert shown[:2] == ["image", "3 components"] and len(figure.axes) == 3 * 5 + 2
    assert {"level map", "anomaly map", "distance"} <= set(shown)
    assert {axis.get_ylabel() for axis in figure.axes} >= {"teacher", "student", "disagreement", "standard deviations"}
    alt = figure.get_label()
    assert "level 1 (4 x 8 positions)" in alt and "a$b.png" in alt


def test_teacher_and_student_share_their_scales(detector: kd.Detector) -> None:
    figure = kd.viz.features(detector, np.zeros((32, 64, 3), dtype=np.uint8), channels=[5, 2])
    images = [axis.images[0] for axis in figure.axes if axis.images]
    channels = [image for image in images if image.get_cmap().name == "viridis" and image.get_array().ndim == 2]
    assert len(channels) == 4 and len({image.get_clim() for image in channels}) == 1
    assert [text for text in titles(figure) if text.startswith("channel")] == ["channel 5", "channel 2"]


def test_strongest_channels_are_those_that_vary_or_differ_most() -> None:
    t, s = np.zeros((3, 2, 2)), np.zeros((3, 2, 2))
    t[1, 0, 0], t[2, 0, 0], s[2, 0, 0], s[0] = 1, 5, 5, 3
    assert feature_sheet._chosen(t, s, 2, "strength") == [2, 1]
    assert feature_sheet._chosen(t, s, 2, "disagreement") == [0, 1]


def test_equal_features_have_equal_colours() -> None:
    t = np.random.default_rng(0).normal(size=(6, 4, 5))
    teacher, student = feature_sheet._components(t, t.copy())
    assert teacher.shape == (4, 5, 3) and np.array_equal(teacher, student) and np.ptp(teacher) > 0.9
    few = feature_sheet._components(t[:2], t[:2])[0]
    assert few.shape == (4, 5, 3) and not few[..., 2].any()


def test_a_method_that_is_no_detector_has_the_size_of_the_image(calib_model: Distiller) -> None:
    figure = kd.viz.features(calib_model, torch.rand(3, 32, 48), channels=1, unit=False)
    assert figure.axes[0].images[0].get_array().shape[:2] == (32, 48)
    figure = kd.viz.features(calib_model, torch.rand(3, 32, 48), channels=1, size=(64, 64))
    assert figure.axes[0].images[0].get_array().shape[:2] == (64, 64)


def test_levels_are_those_of_the_maps() -> None:
    for name, count in (("efficientad", 2), ("memkd", 3)):
        model = tiny.build(name, weights="random")
        assert kd.viz.features(model, torch.rand(3, 64, 64), level=count - 1, channels=1).get_label()
        with pytest.raises(ValueError, match=f"no level {count}"):
            kd.viz.features(model, torch.rand(3, 64, 64), level=count)


def test_a_command_draws_the_levels_that_there_are(detector_data: kd.data.Splits) -> None:
    flow = tiny.build("dhkd", weights="random", score="both")  # six level maps, of three levels
    tiny.fit(flow, detector_data.train)
    assert list(feature_sheet.drawable(tiny.calibrated(flow, detector_data.calib))) == [0, 1, 2]
    lookup = tiny.build("nearest", weights="random", patches=8)
    tiny.fit(lookup, detector_data.train)
    with pytest.raises(ValueError, match="'nearest' has no student"):
        feature_sheet.drawable(tiny.calibrated(lookup, detector_data.calib))


def test_what_cannot_be_drawn_is_refused(calib_model: Distiller, detector_data: kd.data.Splits) -> None:
    image = torch.rand(3, 32, 32)
    with pytest.raises(ValueError, match="no level 3; expected 0 to 2"):
        kd.viz.features(calib_model, image, level=3)
    with pytest.raises(ValueError, match="order is 'size'"):
        kd.viz.features(calib_model, image, order="size")  # type: ignore[arg-type]
    for channels in (0, [], [64], [-1]):
        with pytest.raises(ValueError, match="expected one or more, of 0 to 63"):
            kd.viz.features(calib_model, image, channels=channels)
    lookup = tiny.build("nearest", backbone="resnet18", weights="random", patches=8)
    tiny.fit(lookup, detector_data.train)
    with pytest.raises(ValueError, match="'nearest' has no student"):
        kd.viz.features(lookup, image)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": "rd"}, "model is a str; expected a distiller as kd.build gives"),
    "nothing": ({"image": None}, "cannot read an image from NoneType"),
    "list": ({"image": [torch.zeros(3, 8, 8)]}, "cannot read an image from list"),
    "batch": ({"image": torch.zeros(1, 3, 8, 8)}, r"cannot read an image from a tensor \(1, 3, 8, 8\)"),
    "last": ({"image": torch.zeros(8, 8, 3)}, r"cannot read an image from a tensor \(8, 8, 3\)"),
    "range": ({"image": torch.full((3, 8, 8), 2.0)}, "image values span 2 to 2; expected floats in 0..1"),
    "type": ({"image": torch.zeros(3, 8, 8).long()}, "from an array of int64; expected uint8"),
    "level text": ({"level": "1"}, "no level '1'; expected 0 to 2"),
    "level fraction": ({"level": 1.5}, "no level 1.5; expected 0 to 2"),
    "level none": ({"level": None}, "no level None; expected 0 to 2"),
    "levels": ({"level": [0, 1]}, r"no level \[0, 1\]; expected 0 to 2"),
    "negative": ({"channels": -1}, "channels are -1; expected one or more, of 0 to 63"),
    "channel fraction": ({"channels": [1.5]}, r"channels are \[1.5\]; expected one or more, of 0 to 63"),
    "channel text": ({"channels": "4"}, "channels are '4'; expected one or more, of 0 to 63"),
    "switch": ({"channels": True}, "channels are True; expected one or more, of 0 to 63"),
    "order": ({"channels": [0], "order": None}, "order is None; expected strength or disagreement"),
    "side": ({"size": 64}, "size is 64; expected height and width in pixels"),
    "no pixels": ({"size": (0, 64)}, r"size is \(0, 64\); expected height and width in pixels"),
    "half pixels": ({"size": (64, 32.5)}, r"size is \(64, 32.5\); expected height and width in pixels"),
    "width": ({"width": "wide"}, "width is 'wide'; expected 1 inch or more"),
    "no width": ({"width": float("nan")}, "width is nan; expected 1 inch or more"),
}


@pytest.mark.parametrize("which", WRONG)
def test_arguments_of_another_kind_are_named(which: str, calib_model: Distiller) -> None:
    changed, said = WRONG[which]
    with pytest.raises(ValueError, match=said):
        kd.viz.features(**{"model": calib_model, "image": torch.rand(3, 32, 32)} | changed)


def test_numbers_of_numpy_are_numbers(calib_model: Distiller) -> None:
    numbers: dict[str, Any] = {"level": np.int64(1), "channels": np.array([3, 1]), "size": np.array([64, 32])}
    assert "channels 3, 1 on" in kd.viz.features(calib_model, torch.rand(3, 32, 32), **numbers).get_label()
    figure = kd.viz.features(calib_model, torch.rand(3, 32, 32), channels=np.int64(2))  # type: ignore[arg-type]
    assert len(figure.axes) == 3 * 4 + 2


def test_a_panel_shows_it(detector: kd.Detector) -> None:
    from ipywidgets import IntSlider

    image = np.full((32, 64, 3), 90, dtype=np.uint8)

    def draw(level: int) -> Figure:
        return kd.viz.features(detector, image, level=level, channels=2)

    panel = widgets.explorer({"level": IntSlider(0, 0, 2)}, draw, task="find it")
    panel.set(level=2)


def test_pictures_of_a_flat_image_have_numbers(detector: kd.Detector, tmp_path: Path) -> None:
    figure = kd.viz.features(detector, np.zeros((8, 8), dtype=np.uint8))
    figure.savefig(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as file:
        assert file.width > 500
