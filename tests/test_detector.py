"""Detectors: one score for one picture however it is handed in; calibration on normal images only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import kdlib as kd
from kdlib.scoring.inputs import decoded, resized


def scored(detector: kd.Detector, images: Any) -> np.ndarray[Any, Any]:
    return kd.score(detector, images, device="cpu", precision="fp32").scores


def pixels(height: int = 50, width: int = 70) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_one_picture_has_one_score(detector: kd.Detector, tmp_path: Path) -> None:
    array = pixels()
    Image.fromarray(array).save(tmp_path / "a.png")
    chw = torch.from_numpy(array.transpose(2, 0, 1).copy())
    expected = scored(detector, tmp_path / "a.png")
    assert expected.shape == (1,)
    for same in (str(tmp_path / "a.png"), Image.open(tmp_path / "a.png"), array, chw, chw[None], array[None], [array]):
        assert scored(detector, same).tolist() == expected.tolist()
    for floats in (array / 255, (array / 255).astype(np.float32), chw / 255, chw.double()[None] / 255):
        assert scored(detector, floats) == pytest.approx(expected, rel=1e-3)


def test_floats_of_the_working_size_stay_as_they_are(detector_data: kd.data.Splits) -> None:
    image = torch.rand(3, 32, 64)
    path = detector_data.test.samples[0].path
    for given, expected in (
        (image, image),
        (image.permute(1, 2, 0).numpy(), image),
        (image[:1], image[:1].expand(3, -1, -1)),
        (path, detector_data.test[0]["image"]),
    ):
        assert torch.equal(resized(decoded(given), (32, 64)), expected)


def test_grey_pictures(detector: kd.Detector) -> None:
    grey = pixels()[..., 0]
    expected = scored(detector, np.stack([grey] * 3, axis=-1))
    sixteen = grey.astype(np.uint16) * 257
    for same in (grey, grey[..., None], sixteen, Image.fromarray(grey), Image.fromarray(sixteen), torch.tensor(grey)):
        assert scored(detector, same).tolist() == expected.tolist()
    assert scored(detector, torch.tensor(grey)[None] / 255) == pytest.approx(expected, rel=1e-3)


@pytest.mark.filterwarnings("ignore:A 16-bit image:UserWarning")
def test_pillow_modes(detector: kd.Detector) -> None:
    rgb = Image.fromarray(pixels())
    clear = rgb.convert("RGBA")
    clear.putalpha(40)
    palette = rgb.quantize(16)
    expected = scored(detector, rgb)
    assert scored(detector, clear).tolist() == expected.tolist()
    assert scored(detector, np.asarray(clear)).tolist() == expected.tolist()
    assert scored(detector, palette).tolist() == scored(detector, palette.convert("RGB")).tolist()
    for mode in ("1", "L", "LA", "CMYK", "YCbCr", "HSV", "I;16"):
        image = rgb.convert("L").convert(mode) if mode == "I;16" else rgb.convert(mode)
        assert np.isfinite(scored(detector, image)).all()
    with pytest.raises(ValueError, match="floating-point pixels"):
        scored(detector, rgb.convert("F"))


def test_photographs_are_turned_upright(detector: kd.Detector, tmp_path: Path) -> None:
    upright = Image.fromarray(pixels())
    lying, exif = upright.transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "a.png", exif=exif)
    for same in (tmp_path / "a.png", Image.open(tmp_path / "a.png")):
        assert scored(detector, same).tolist() == scored(detector, upright).tolist()


def test_lists_of_anything(detector: kd.Detector, tmp_path: Path) -> None:
    arrays = [pixels(40 + n, 60 - n) for n in range(5)]
    Image.fromarray(arrays[0]).save(tmp_path / "a.png")
    mixed: list[Any] = [
        tmp_path / "a.png",
        Image.fromarray(arrays[1]),
        arrays[2],
        torch.tensor(arrays[3].transpose(2, 0, 1)),
    ]
    verdict = kd.score(detector, [*mixed, arrays[4]], device="cpu", precision="fp32", batch_size=2)
    alone = np.concatenate([scored(detector, array) for array in arrays])
    assert verdict.scores == pytest.approx(alone, rel=1e-3)
    assert verdict.maps.shape == (5, 32, 64) and verdict.maps.dtype == np.float32
    assert verdict.scores == pytest.approx(verdict.maps.max(axis=(1, 2)))
    assert verdict.anomalous.tolist() == (verdict.scores > detector.threshold.value).tolist()


def test_score_agrees_with_evaluate(detector: kd.Detector, detector_data: kd.data.Splits) -> None:
    result = kd.evaluate(detector.model, detector_data.test, device="cpu", precision="fp32", batch_size=3)
    verdict = kd.score(detector, [s.path for s in detector_data.test.samples], device="cpu", precision="fp32")
    np.testing.assert_allclose(verdict.scores, result.scores, rtol=1e-4)
    np.testing.assert_allclose(verdict.maps, result.maps, rtol=1e-3, atol=1e-6)
    assert set(result.metrics()) == {"image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "aupro"}
    cracks = result.of_defect("crack")
    assert cracks.labels.tolist().count(1) == 1 and len(cracks.labels) == 3
    with pytest.raises(ValueError, match=r"no image has the defect 'rust'.*broken.*crack"):
        result.of_defect("rust")
    assert all(np.isnan(value) for value in result.of_defect("normal").metrics().values())


def truncated(path: Path) -> Path:
    pixels_ = Image.fromarray(pixels())
    pixels_.save(path)
    path.write_bytes(path.read_bytes()[:900])
    return path


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda p: p / "none.png", r"none\.png is missing"),
    "truncated file": (lambda p: truncated(p / "half.png"), "cannot be read as an image"),
    "truncated picture": (lambda p: Image.open(truncated(p / "half.png")), "cannot be decoded"),
    "folder": (lambda p: p, "cannot be read"),
    "bytes of no image": (lambda p: b"x" * 99, "cannot be read as an image"),
    "no bytes": (lambda p: b"", "cannot be read as an image"),
    "half of the bytes": (lambda p: truncated(p / "half.png").read_bytes(), "cannot be read as an image"),
    "nothing": (lambda p: [], "no images to score"),
    "None": (lambda p: None, "cannot read an image from NoneType"),
    "number": (lambda p: [3], "cannot read an image from int"),
    "channels first": (lambda p: np.zeros((3, 8, 9), np.uint8), r"array \(3, 8, 9\) of uint8"),
    "two channels": (lambda p: torch.zeros(2, 8, 8), r"tensor \(2, 8, 8\)"),
    "integers": (lambda p: np.zeros((8, 8, 3), np.int64), "of int64"),
    "bright floats": (lambda p: np.full((8, 8, 3), 255.0), r"span 255 to 255; expected floats in 0\.\.1"),
    "NaN": (lambda p: torch.full((3, 8, 8), torch.nan), "span nan"),
    "normalised": (lambda p: torch.randn(3, 32, 64), "expected floats in 0..1"),
    "empty picture": (lambda p: Image.new("RGB", (0, 4)), "has 0 x 4 pixels; expected at least 1 x 1"),
    "empty": (lambda p: np.zeros((0, 4, 3), np.uint8), r"array \(0, 4, 3\)"),
}


@pytest.mark.parametrize("which", WRONG)
def test_what_is_no_image_is_refused(which: str, detector: kd.Detector, tmp_path: Path) -> None:
    make, words = WRONG[which]
    with pytest.raises(ValueError, match=words):
        scored(detector, make(tmp_path))


def test_a_detector_needs_normal_images(detector: kd.Detector, detector_data: kd.data.Splits) -> None:
    with pytest.raises(ValueError, match="4 calibration images are anomalous"):
        kd.calibrate(detector.model, detector_data.test)
    with pytest.raises(ValueError, match="no calibration images"):
        kd.calibrate(detector.model, detector_data.calib.subset([]))


def test_other_objects_are_named(detector: kd.Detector, detector_data: kd.data.Splits, tmp_path: Path) -> None:
    model: Any = detector.model
    data: Any = detector_data
    for wrong, call in (
        ("detector is a STPM; expected a Detector as kd.cal", lambda: kd.score(model, pixels())),
        ("detector is a str; expected a Detector", lambda: kd.score("folder", pixels())),  # type: ignore[arg-type]
        ("detector is a STPM; expected a Detector", lambda: kd.save(model, tmp_path / "x")),
        ("model is a Detector; expected a distiller", lambda: kd.fit(detector, data.train)),  # type: ignore[arg-type]
        ("model is a Detector; expected a distiller", lambda: kd.calibrate(detector, data.calib)),  # type: ignore[arg-type]
        ("images is a Splits; expected an image set, such as data.calib", lambda: kd.calibrate(model, data)),
        ("images is a Splits; expected an image set, such as data.test", lambda: kd.evaluate(model, data)),
    ):
        with pytest.raises(ValueError, match=wrong):
            call()


def test_the_bytes_of_a_file_are_an_image(detector: kd.Detector, tmp_path: Path) -> None:
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    expected = scored(detector, tmp_path / "a.png").tolist()
    assert scored(detector, content).tolist() == scored(detector, bytearray(content)).tolist() == expected
    assert scored(detector, [content, tmp_path / "a.png"]).tolist() == pytest.approx(expected * 2, rel=1e-4)


def test_maps_at_the_size_of_each_image(detector: kd.Detector, tmp_path: Path) -> None:
    lying, exif = Image.fromarray(pixels(30, 40)), Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "a.png", exif=exif)
    images = [pixels(50, 70), tmp_path / "a.png", torch.rand(3, 20, 90), torch.rand(3, 32, 64)]
    full = kd.score(detector, images, full_size=True, device="cpu", precision="fp32")
    working = kd.score(detector, images, device="cpu", precision="fp32")
    assert [amap.shape for amap in full.maps] == [(50, 70), (40, 30), (20, 90), (32, 64)]
    assert full.scores.tolist() == working.scores.tolist()
    assert np.array_equal(full.maps[3], working.maps[3])
    grown = torch.nn.functional.interpolate(torch.tensor(working.maps[:1])[None], size=(50, 70), mode="bilinear")
    np.testing.assert_allclose(full.maps[0], grown[0, 0].numpy(), rtol=1e-5)


def test_a_detector_can_be_evaluated(detector: kd.Detector, detector_data: kd.data.Splits) -> None:
    assert isinstance(detector, torch.nn.Module)
    found, expected = (
        kd.evaluate(m, detector_data.test, device="cpu", precision="fp32") for m in (detector, detector.model)
    )
    assert np.array_equal(found.maps, expected.maps)


def test_the_white_level_of_the_calibration_images_is_kept(tmp_path: Path) -> None:
    twelve_bits = np.random.default_rng(0).integers(0, 4096, (8, 32, 64)).astype(np.uint16)
    for i, values in enumerate(twelve_bits):
        path = tmp_path / "part" / "train" / "good" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    images = kd.data.load(tmp_path, size=(32, 64), white=4095)
    model = tiny.build("stpm", backbone="resnet18", weights="random")
    detector = kd.calibrate(model, images.calib, device="cpu", precision="fp32")
    path = images.calib.samples[0].path
    expected = kd.evaluate(detector, images.calib, device="cpu").scores[:1]
    for one in (detector, kd.load(kd.save(detector, tmp_path / "saved"))):
        for image in (path, path.read_bytes(), Image.open(path), np.asarray(Image.open(path))):
            assert kd.score(one, image, device="cpu").scores == pytest.approx(expected, rel=1e-4)
