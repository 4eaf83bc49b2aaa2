"""Pictures and masks of every pixel format, orientation and size."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from kdlib.data import DatasetError, ImageSet, Sample, open_image, open_mask, resize_image, resize_mask, to_rgb

ORIENTATION = 0x0112


def read(path: Path) -> np.ndarray:
    return np.asarray(open_image(path))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 100, 255]], dtype=np.uint8)).save(tmp_path / "g.png")
    assert read(tmp_path / "g.png").tolist() == [[[0] * 3, [100] * 3, [255] * 3]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(np.array([[0, 257, 32896, 65535]], dtype=np.uint16)).save(path)
    assert Image.open(path).mode.startswith("I")
    assert read(path)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("values", [np.float32([[0.0, 0.5]]), np.int32([[0, 70000]])])
def test_pixels_of_unknown_range_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "odd.tif")
    with pytest.raises(DatasetError, match=r"odd\.tif.*8 or 16 bits"):
        open_image(tmp_path / "odd.tif")


def test_palette_and_alpha_keep_their_colours(tmp_path: Path) -> None:
    red = Image.new("RGBA", (4, 3), (200, 10, 20, 90))
    red.save(tmp_path / "alpha.png")
    red.convert("RGB").quantize(4).save(tmp_path / "palette.png", transparency=0)
    for name in ("alpha.png", "palette.png"):
        assert read(tmp_path / name).shape == (3, 4, 3)
        assert np.abs(read(tmp_path / name).astype(int) - (200, 10, 20)).max() <= 2, name


def test_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (250, 120, 10)).convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    assert Image.open(tmp_path / "print.jpg").mode == "CMYK"
    assert np.abs(read(tmp_path / "print.jpg").astype(int) - (250, 120, 10)).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_gives_the_picture_a_viewer_shows(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((6, 8, 3), dtype=np.uint8)
    upright[:2, :3] = 255
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "turned.png", exif=exif(orientation))
    assert (read(tmp_path / "turned.png") == upright).all()


def test_mask_of_a_turned_photograph_belongs_to_the_displayed_picture(tmp_path: Path) -> None:
    Image.new("RGB", (12, 8)).save(tmp_path / "photo.jpg", exif=exif(6))
    Image.fromarray(np.eye(12, 8, dtype=np.uint8) * 255).save(tmp_path / "mask.png")
    Image.fromarray(np.eye(8, 12, dtype=np.uint8) * 255).save(tmp_path / "lying.png")

    def item(mask: str) -> torch.Tensor:
        sample = Sample(path=tmp_path / "photo.jpg", category="c", defect="d", label=1, mask_path=tmp_path / mask)
        return ImageSet([sample], categories=["c"], size=(12, 8))[0]["mask"]

    assert (item("mask.png")[0].numpy() == np.eye(12, 8, dtype=bool)).all()
    with pytest.raises(DatasetError, match=r"lying\.png is 12 x 8.*photo\.jpg is 8 x 12"):
        item("lying.png")


def test_resizing_gives_any_size_and_removes_moire() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    small = resize_image(Image.fromarray(stripes), (8, 16))
    assert small.shape == (3, 8, 16) and small.dtype == torch.uint8
    assert (small.float() - 127.5).abs().max() < 12


def test_mask_pixel_counts_when_half_of_its_area_does() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[:4, :4] = True
    mask[6:, 6] = True
    mask[0, 7] = True
    expected = np.zeros((4, 4), dtype=bool)
    expected[:2, :2] = expected[3, 3] = True
    assert (resize_mask(mask, (4, 4))[0].numpy() == expected).all()


def test_mask_average_is_exact_for_fractional_scales() -> None:
    mask = np.zeros((3, 3), dtype=bool)
    mask[1, :] = True
    assert resize_mask(mask, (2, 2))[0].tolist() == [[True, True], [True, True]]
    mask = np.random.default_rng(0).random((35, 21)) > 0.5
    fine = mask.repeat(16, axis=0).repeat(16, axis=1)
    assert torch.equal(resize_mask(mask, (16, 16)), resize_mask(fine, (16, 16)))
    blocks = fine.reshape(16, 35, 16, 21).mean(axis=(1, 3))
    assert (resize_mask(mask, (16, 16))[0].numpy() == (blocks >= 0.5)).all()


def test_hair_thin_defect_survives() -> None:
    mask = np.zeros((300, 200), dtype=bool)
    mask[:, 57] = True
    small = resize_mask(mask, (32, 32))[0]
    assert small.sum() == 32 and small[:, 57 * 32 // 200].all()
    assert not resize_mask(np.zeros((300, 200), dtype=bool), (32, 32)).any()


def test_enlarged_mask_keeps_its_place() -> None:
    mask = np.eye(4, dtype=bool)
    assert (resize_mask(mask, (8, 8))[0].numpy() == mask.repeat(2, axis=0).repeat(2, axis=1)).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "RGBA", "LA", "I;16"])
def test_masks_of_every_mode_agree(tmp_path: Path, mode: str) -> None:
    wanted = np.array([[True, False, False], [False, True, True]])
    if mode == "I;16":
        picture = Image.fromarray(wanted.astype(np.uint16) * 300)
    else:
        picture = Image.fromarray(wanted.astype(np.uint8) * 255).convert(mode)
    picture.save(tmp_path / "m.png")
    assert (open_mask(tmp_path / "m.png") == wanted).all()


def test_masks_are_read_as_what_they_show(tmp_path: Path) -> None:
    square = np.zeros((40, 40), dtype=np.uint8)
    square[13:25, 11:29] = 255
    grey = Image.fromarray(square)
    seen = Image.merge("RGBA", [grey] * 3 + [Image.fromarray(np.tile(np.arange(1, 41, dtype=np.uint8), (40, 1)))])
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    lossy: dict[str, Any] = {"quality": 30}
    for picture, kind, options in (
        (grey.convert("RGB").convert("YCbCr"), "TIFF", {}),
        (grey, "TIFF", {"compression": "jpeg"} | lossy),
        (grey, "WEBP", {"icc_profile": profile} | lossy),
        (grey, "WEBP", {"icc_profile": profile, "lossless": True}),
        (seen, "WEBP", lossy),
        (grey, "PNG", {"icc_profile": profile}),
    ):
        picture.save(tmp_path / "mask", kind, **options)
        assert (open_mask(tmp_path / "mask") == (square > 0)).all(), (picture.mode, kind, options)
    classes = Image.fromarray(np.minimum(square, 2))
    for kind in ("PNG", "WEBP"):
        classes.save(tmp_path / "mask", kind, icc_profile=profile, lossless=True)
        assert (open_mask(tmp_path / "mask") == (square > 0)).all(), kind


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_masks_in_colours_of_print_are_refused(tmp_path: Path, kind: str) -> None:
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(tmp_path / "mask", kind)
    with pytest.raises(DatasetError, match=r"mask has colours of print \(CMYK\).*expected grey.*Save it as a grey PNG"):
        open_mask(tmp_path / "mask")


def test_mask_details(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 3]], dtype=np.uint8)).save(tmp_path / "classes.png")
    assert open_mask(tmp_path / "classes.png").tolist() == [[False, True, True]]
    blue = np.zeros((1, 2, 4), dtype=np.uint8)
    blue[0, :, 2] = 9
    blue[0, 0, 3] = 255
    Image.fromarray(blue).save(tmp_path / "layer.png")
    assert open_mask(tmp_path / "layer.png").tolist() == [[True, False]]


@pytest.mark.parametrize(("white", "values"), [(255, [0, 255, 255]), (1023, [0, 128, 255]), (4095, [0, 32, 255])])
def test_white_level_of_cameras_with_few_bits(tmp_path: Path, white: int, values: list[int]) -> None:
    path = tmp_path / "camera.png"
    Image.fromarray(np.array([[0, 512, 5000]], dtype=np.uint16)).save(path)
    assert np.asarray(open_image(path, white))[0, :, 0].tolist() == values
    assert np.asarray(to_rgb(Image.open(path), white))[0, :, 0].tolist() == values


@pytest.mark.parametrize(("brightest", "white", "levels"), [(200, 255, 2), (1000, 1023, 5), (4095, 4095, 17)])
def test_few_bits_in_16_are_said(tmp_path: Path, brightest: int, white: int, levels: int) -> None:
    path = tmp_path / "camera.png"
    Image.fromarray(np.array([[0, brightest]], dtype=np.uint16)).save(path)
    text = rf"no pixel above {white}: scaled by 65535, {levels} grey levels .* give white={white} to load"
    with pytest.warns(UserWarning, match=text):
        read(path)
    open_image(path, white)
    open_image(path, 65535)
    Image.fromarray(np.array([[0, 4096]], dtype=np.uint16)).save(path)
    read(path)
    Image.fromarray(np.zeros((2, 2), dtype=np.uint16)).save(path)
    read(path)


def deep_colour(path: Path, value: int) -> Path:
    """A PNG of 2 x 2 pixels with 16 bits in each of three channels, which Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = (b"\0" + struct.pack(">6H", *[value] * 6)) * 2
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def test_few_bits_in_16_bit_colour(tmp_path: Path) -> None:
    assert read(deep_colour(tmp_path / "full.png", 0xC0DE)).tolist() == [[[0xC0] * 3] * 2] * 2
    dark = deep_colour(tmp_path / "dark.png", 0x0FFF)
    with pytest.warns(UserWarning, match=r"16 bits per colour channel has no pixel above 4095 .* leaves 16 levels"):
        read(dark)
    with pytest.raises(DatasetError, match=r"dark\.png has 16 bits per colour channel; a white level \(4095\) works"):
        open_image(dark, 4095)


def test_grey_with_a_declared_range_is_scaled_by_it(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 1023\n" + struct.pack(">2H", 1023, 341))
    assert read(tmp_path / "a.pgm")[0, :, 0].tolist() == [255, 85]
