"""Pictures of features: what is drawn, of which level and channels, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path

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
