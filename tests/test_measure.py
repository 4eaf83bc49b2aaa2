"""What Measure cells share: one product judged, the table of several, maps of two sizes beside one image."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import tiny

import kdlib as kd
from kdlib.course import measure


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> kd.data.Splits:
    return tiny.data(tmp_path_factory.mktemp("data"), train=12, size=64, calib_share=0.4)


def test_a_lookup_is_trained_judged_and_put_into_a_table(data: kd.data.Splits) -> None:
    mean = measure.trained("mean", data, backbone="resnet18", weights="random")
    rows = {maps: measure.judge(mean, data, maps) for maps in ("plain", "normal", "whitened")}
    assert rows["plain"].detector.normal is None and rows["whitened"].detector.whitening is not None
    table = measure.table(rows, kinds=True).splitlines()
    kinds = sorted({s.defect for s in data.test.samples} - {"normal"})
    assert table[0] == f"| | image AUROC | pixel AUROC | AUPRO | {' | '.join(kinds)} |".replace("_", " ")
    plain = rows["plain"].result
    values = [plain.metrics()[metric] for metric in measure.METRICS]
    values += [plain.of_defect(kind).metrics()["image_auroc"] for kind in kinds]
    assert table[2] == "| plain | " + " | ".join(f"{value:.3f}" for value in values) + " |"


def test_maps_of_two_sizes_lie_where_the_picture_lies(data: kd.data.Splits, tmp_path: Path) -> None:
    rows = {}
    for size in (64, 128):
        sized = tiny.data(tmp_path / str(size), train=12, size=size, calib_share=0.4)
        rows[f"{size} px"] = measure.judge(measure.trained("mean", sized, backbone="resnet18", weights="random"), sized)
    figure = measure.maps(rows, sized.test, [0, len(sized.test) - 1])
    drawn = [image for axis in figure.axes for image in axis.images if image.get_extent()[1] < 200]
    assert {tuple(image.get_extent()) for image in drawn} == {(-0.5, 127.5, 127.5, -0.5)}
    assert {image.get_array().shape[0] for image in drawn} == {64, 128}
    plt.close(figure)
