"""The notebooks' figures: images, maps and verdicts, with what they say in words."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tiny
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

import kdlib as kd
from kdlib.course import figures
from kdlib.scoring.calibration import Scale, threshold


@pytest.fixture(autouse=True)
def closed() -> None:
    plt.close("all")


def texts(figure: Figure) -> list[str]:
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(Text)]


def test_maps_stand_beside_their_image_with_their_maximum() -> None:
    images, amap, mask = [np.zeros((8, 8, 3))] * 2, np.eye(8), np.eye(8) > 0
    figure = figures.beside(images, {"mean": [amap, 3 * amap]}, [mask, mask & False], titles=["a", "b"])
    words = texts(figure)
    assert {"image", "mean", "a", "b", "maximum 1.00", "maximum 3.00"} <= set(words)
    outlined = [len(axis.collections) for axis in figure.axes[:4]]
    assert outlined == [0, 1, 0, 0]


def test_features_are_shown_in_three_views() -> None:
    x = torch.rand(1, 3, 32, 32)
    figure = figures.features(x, [torch.rand(1, 5, 8, 8), torch.rand(1, 6, 4, 4)], (4, 8))
    assert {"stride 4", "stride 8", "one channel", "three components"} <= set(texts(figure))


class Brightness:
    def anomaly_map(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1, keepdim=True)

    def image_score(self, amap: torch.Tensor) -> torch.Tensor:
        return amap.flatten(1).amax(1)


def test_a_threshold_moves_the_table_and_the_verdicts(tmp_path: Path) -> None:
    images = tiny.data(tmp_path, size=32).test
    result = kd.evaluate(Brightness(), images, device="cpu", precision="fp32")
    model = tiny.build("stpm", backbone="resnet18", weights="random")
    detector = kd.Detector(model, (32, 32), threshold([0.5]), Scale(low=0.0, high=1.0))
    defective = int(result.labels.sum())
    low, high = (figures.decision(result, images, detector, times, title="t") for times in (0.0, 4.0))
    assert f"{defective} found, 0 missed" in str(low.get_label())
    assert f"0 found, {defective} missed, 0 false alarm, {len(images) - defective} passed" in str(high.get_label())
    assert f"{defective}\nmissed" in texts(high)
    assert figures.verdicts(result, 10.0) == ["missed" if label else "passed" for label in result.labels]
