"""Evaluation: the same metrics whatever is kept; what cannot be measured is NaN with a warning, never an abort."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dataset_trees as trees
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor

import kdlib as kd
from kdlib.scoring import evaluation
from kdlib.scoring.result import examples


class Brightness:
    """Scores pixels by their brightness: a map of which everything is known."""

    def anomaly_map(self, x: Tensor) -> Tensor:
        return x.mean(1, keepdim=True)

    def image_score(self, amap: Tensor) -> Tensor:
        return amap.flatten(1).amax(1)


@pytest.fixture
def data(tmp_path: Path) -> kd.data.Splits:
    return tiny.data(tmp_path, size=(24, 32))


def evaluated(images: kd.data.ImageSet, model: Any = None, **options: Any) -> kd.Result:
    return kd.evaluate(model or Brightness(), images, device="cpu", precision="fp32", **options)


@pytest.mark.parametrize("keep", ["none", [4, 0], [], np.array([2])], ids=str)
def test_metrics_do_not_depend_on_what_is_kept(keep: Any, data: kd.data.Splits) -> None:
    whole, part = evaluated(data.test), evaluated(data.test, keep=keep, batch_size=4)
    assert part.metrics() == pytest.approx(whole.metrics(), abs=1e-12)
    assert not np.isnan(list(part.metrics().values())).any()
    assert part.scores.tolist() == whole.scores.tolist() and not part.complete
    positions = [] if isinstance(keep, str) else sorted(keep)
    assert part.kept.tolist() == positions and part.kept_maps.shape == (len(positions), 24, 32)
    for i in positions:
        assert np.array_equal(part.map_of(i), whole.maps[i]) and np.array_equal(part.mask_of(i), whole.masks[i])


def test_maps_that_were_not_kept_are_missed_clearly(data: kd.data.Splits) -> None:
    part = evaluated(data.test, keep=[1])
    with pytest.raises(ValueError, match=r"the maps of 1 of 6 images were kept; evaluate\(\.\.\., keep='all'\)"):
        _ = part.maps
    with pytest.raises(ValueError, match=r"the map of image 3 was not kept.*keep=\[3\]"):
        part.map_of(3)
    assert np.array_equal(part.map_of(-5), part.map_of(1))
    with pytest.raises(ValueError, match="pixel metrics of a part of the images need its maps"):
        part.of_defect("crack").metrics()
    assert part.subset(np.array([4, 1])).kept.tolist() == [1]


def test_maps_beyond_the_budget_are_counted(data: kd.data.Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluated(data.test)
    monkeypatch.setattr(evaluation, "KEEP", 5 * 24 * 32 * 5)
    part = evaluated(data.test)
    assert whole.complete and not len(part.kept)
    assert part.metrics() == pytest.approx(whole.metrics(), abs=1e-12)
    assert evaluated(data.test.subset(range(5))).complete


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        ("some", "keep is 'some'; expected auto, all, none"),
        ([6], "positions 6 to 6; expected 0 to 5"),
        ([-1], "positions"),
        ([0.5], r"keep is \[0.5\]; expected auto"),
        ({0, 1}, r"keep is \{0, 1\}; expected auto"),
        (None, "keep is None"),
        (3, "keep is 3"),
    ],
)
def test_keep_is_checked(keep: Any, words: str, data: kd.data.Splits) -> None:
    with pytest.raises(ValueError, match=words):
        evaluated(data.test, keep=keep)


@pytest.mark.parametrize("keep", ["all", "none"])
def test_a_mask_without_a_defect_gives_nan_and_names_the_image(keep: str, tmp_path: Path) -> None:
    data = tiny.data(tmp_path, size=(24, 32))
    trees.mask(tmp_path / "bottle" / "ground_truth" / "broken" / "001_mask.png", value=0)
    result = evaluated(data.test, keep=keep)
    with pytest.warns(UserWarning, match=r"1 anomalous images of 'bottle' .* first .*broken.001\.png"):
        found = result.metrics()
    assert {k for k, v in found.items() if np.isnan(v)} == {"pixel_auroc", "pixel_ap", "aupro"}
    if keep == "all":
        assert not np.isnan(list(result.of_defect("crack").metrics().values())).any()


def test_defects_everywhere_give_nan(tmp_path: Path) -> None:
    data = tiny.data(tmp_path, size=(24, 32))
    only = data.test.subset([i for i, s in enumerate(data.test.samples) if s.defect == "crack"])
    crack = next(s for s in only.samples)
    assert crack.mask_path is not None
    Image.fromarray(np.full((10, 12), 255, np.uint8)).save(crack.mask_path)
    for keep in ("all", "none"):
        assert np.isnan(list(evaluated(only, keep=keep).metrics().values())).all()


@pytest.mark.parametrize("keep", ["all", "none"])
def test_categories_are_not_pooled_silently(keep: str, tmp_path: Path) -> None:
    data = tiny.data(tmp_path, "bottle", "cable", size=(24, 32))
    result = evaluated(data.test, keep=keep)
    with pytest.raises(ValueError, match=r"2 categories \['bottle', 'cable'\].*per_category\(\)"):
        result.metrics()
    alone = {category: evaluated(data.test.of(category)).metrics() for category in ("bottle", "cable")}
    assert result.per_category().keys() == alone.keys()
    for category, found in result.per_category().items():
        assert found == pytest.approx(alone[category], abs=1e-12)


class Broken(Brightness):
    def __init__(self, value: float) -> None:
        self.value = value

    def anomaly_map(self, x: Tensor) -> Tensor:
        amap = super().anomaly_map(x)
        amap[-1, 0, 2, 3] = self.value
        return amap


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_maps_that_are_no_numbers_are_refused(value: float, data: kd.data.Splits) -> None:
    with pytest.raises(ValueError, match=r"1 of 6 images have NaN or infinite values, first that of '.*\.png'"):
        evaluated(data.test, Broken(value))


def test_weights_that_are_no_numbers_are_refused(data: kd.data.Splits) -> None:
    model = tiny.build("stpm", backbone="resnet18", weights="random")
    detector = kd.calibrate(model, data.calib, device="cpu", precision="fp32")
    with torch.no_grad():
        model.student_parameters()[0].fill_(torch.nan)
    for scored in (
        lambda: kd.score(detector, np.zeros((8, 8, 3), np.uint8), device="cpu"),
        lambda: kd.calibrate(model, data.calib, device="cpu", precision="fp32"),
        lambda: evaluated(data.test, model),
    ):
        with pytest.raises(ValueError, match="NaN or infinite values"):
            scored()


def test_a_detector_is_evaluated_in_the_precision_of_its_calibration(
    data: kd.data.Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.build("stpm", backbone="resnet18", weights="random")
    detector = kd.calibrate(model, data.calib, device="cpu", precision="bf16")
    assert detector.precision == "bf16"
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        x = torch.stack([data.test[i]["image"] for i in range(len(data.test))])
        expected = detector.image_score(detector.anomaly_map(x).float()).numpy()
    result = kd.evaluate(detector, data.test, device="cpu")
    verdict = kd.score(detector, [s.path for s in data.test.samples], device="cpu")
    exact = kd.evaluate(detector, data.test, device="cpu", precision="fp32")
    np.testing.assert_allclose(result.scores, expected, rtol=1e-2)
    assert verdict.scores.tolist() == result.scores.tolist() != exact.scores.tolist()


def test_examples_take_every_kind_in_turn(data: kd.data.Splits) -> None:
    samples = data.test.samples
    assert [samples[i].defect for i in examples(samples, 4)] == ["normal", "broken", "crack", "broken"]
    assert len(examples(samples, 50)) == 5  # one normal image and all four defects
    assert examples([], 3) == []


def test_single_images_need_no_names() -> None:
    runtime, x = kd.runtime.choose("cpu", "fp32"), torch.rand(3, 3, 4, 5)
    maps, scores = evaluation.predict(Brightness(), x, runtime)
    torch.testing.assert_close(maps, x.mean(1))
    torch.testing.assert_close(scores, x.mean(1).flatten(1).amax(1))
    x[1, 0, 2, 2] = torch.nan
    with pytest.raises(ValueError, match="of 1 of 3 images have NaN or infinite values, first that of image 1;"):
        evaluation.predict(Brightness(), x, runtime)
    with pytest.raises(ValueError, match="first that of 'b'"):
        evaluation.predict(Brightness(), x, runtime, ["'a'", "'b'", "'c'"])
