"""What holds for every test: no window, one thread per operator, the same random numbers each time; a detector."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tiny
import torch

import kdlib as kd

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
