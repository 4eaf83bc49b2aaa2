"""What holds for every test: no window, one thread per operator, the same random numbers each time; a detector."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tiny
import torch

import kdlib as kd
from kdlib import teachers
from kdlib.contract import Distiller

matplotlib.use("Agg")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fresh_start() -> Iterator[None]:
    """Seed before each test; close the figures that it left open after it."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - for libraries that still draw from the global generator
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def calib_data(tmp_path_factory: pytest.TempPathFactory) -> kd.data.Splits:
    """12 training and 8 calibration images, 64 x 64."""
    return tiny.data(tmp_path_factory.mktemp("data"), train=20, size=64, calib_share=0.4)


@pytest.fixture(scope="session")
def calib_model(calib_data: kd.data.Splits) -> Distiller:
    """STPM that has seen them, not to be changed."""
    torch.manual_seed(0)
    model = tiny.build("stpm", backbone="resnet18", weights="random")
    tiny.fit(model, calib_data.train)
    return model


@pytest.fixture(scope="session")
def detector_data(tmp_path_factory: pytest.TempPathFactory) -> kd.data.Splits:
    """What the detector has learned from, 32 x 64."""
    return tiny.data(tmp_path_factory.mktemp("data"), size=(32, 64))


@pytest.fixture(scope="session")
def detector(detector_data: kd.data.Splits) -> kd.Detector:
    """A small detector, not to be changed."""
    torch.manual_seed(0)
    model = tiny.build("stpm", backbone="resnet18", weights="random")
    tiny.fit(model, detector_data.train)
    return kd.calibrate(model, detector_data.calib, device="cpu", precision="fp32")


@pytest.fixture(autouse=True)
def built_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives tests of anything but teachers copies of pretrained teachers: to build and load one takes a second."""
    real = teachers.teacher

    def teacher(*arguments: Any, **options: Any) -> teachers.Teacher:
        key = repr((arguments, options))
        if key not in BUILT:
            built = real(*arguments, **options)
            if getattr(getattr(built, "weights", None), "kind", "") != "package":
                return built
            BUILT[key] = built
        return deepcopy(BUILT[key])

    if "teacher" not in request.module.__name__:
        monkeypatch.setattr(teachers, "teacher", teacher)


BUILT: dict[str, teachers.Teacher] = {}
