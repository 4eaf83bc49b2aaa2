"""Files are decoded by their content, completely or not at all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import picture
from PIL import Image, ImageFile

from kdlib.data import DatasetError, open_image, open_mask

ORIENTATION = 0x0112


def read(path: Path) -> np.ndarray:
    return np.asarray(open_image(path))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_truncated_image_is_named(tmp_path: Path, suffix: str, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = picture(tmp_path / f"cut{suffix}", size=(32, 32))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DatasetError, match=rf"cut\{suffix} cannot be read as an image"):
        open_image(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(DatasetError, match=r"text\.png cannot be read"):
        open_image(tmp_path / "text.png")
    with pytest.raises(DatasetError, match=r"gone\.png is missing"):
        open_image(tmp_path / "gone.png")


def test_the_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    square = np.zeros((40, 40), dtype=np.uint8)
    square[13:25, 11:29] = 255
    for name, options in {"JPEG": {"quality": 80}, "WEBP": {"quality": 50}}.items():
        Image.fromarray(square).save(tmp_path / "lossy.png", name, **options)
        assert (open_mask(tmp_path / "lossy.png") == (square > 0)).all(), name
    for name, options in {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}.items():
        Image.fromarray(np.minimum(square, 2)).save(tmp_path / "classes.jpg", name, **options)
        assert (open_mask(tmp_path / "classes.jpg") == (square > 0)).all(), name
    Image.fromarray(square).save(tmp_path / "picture.jpg", "PNG")
    assert (read(tmp_path / "picture.jpg")[..., 0] == square).all()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "RGB", "1", "LA"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_turned_uncompressed_tiff(tmp_path: Path, mode: str, orientation: int) -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) // 24 * 255
    grey[0, :3] = 255
    picture = Image.fromarray(grey).convert("RGB").convert(mode)
    picture.save(tmp_path / "turned.tif", exif=exif(orientation))
    turns = {3: 2, 6: 3, 8: 1}[orientation]
    assert (read(tmp_path / "turned.tif")[..., 0] == np.rot90(grey, turns)).all()
    assert (open_mask(tmp_path / "turned.tif") == np.rot90(grey > 0, turns)).all()


def test_bytes_of_a_file_are_read_too(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    assert (np.asarray(open_image(path.read_bytes())) == read(path)).all()
    with pytest.raises(DatasetError, match="The image cannot be read as an image"):
        open_image(path.read_bytes()[:100])


def test_threads_refuse_truncated_files_whatever_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = []
    for number in range(48):
        path = picture(tmp_path / f"{number}{('.png', '.jpg', '.bmp')[number % 3]}", size=(64, 64), seed=number)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        cut.append(path)

    def refused(path: Path) -> bool:
        try:
            open_image(path)
        except DatasetError:
            return True
        return False

    for setting in (True, False):
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", setting)
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(refused, cut))
        assert ImageFile.LOAD_TRUNCATED_IMAGES is setting


def test_damaged_data_is_refused_whatever_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    path = picture(tmp_path / "a.png", size=(64, 64))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=r"a\.png cannot be read as an image \(broken data"):
        open_image(path)


def test_very_large_images_are_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path / "big.png", size=(30, 30))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(DatasetError, match=r"big\.png is larger than Pillow reads .*900 pixels.* PIL.Image.MAX_IMAGE"):
        open_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert read(path).shape == (30, 30, 3)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animations_are_refused(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(DatasetError, match="it is an animation of 2 frames"):
        read(tmp_path / f"a{suffix}")
    frames[0].save(tmp_path / "pages.tif", save_all=True, append_images=frames[1:])
    assert read(tmp_path / "pages.tif")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("suffix", [".gif", ".ppm", ".jfif", ".jp2", ".jpe"])
def test_further_formats(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (16, 8), (200, 40, 80)).save(tmp_path / f"a{suffix}")
    assert np.abs(read(tmp_path / f"a{suffix}").astype(int) - (200, 40, 80)).max() <= 3


def test_foreign_formats_are_not_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    with pytest.raises(DatasetError, match=r"a\.png cannot be read as an image \(its content is none of PNG, JPEG, "):
        read(tmp_path / "a.png")
