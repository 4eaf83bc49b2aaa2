"""Files that cannot be used are found before training, and names that cannot be printed do no harm."""

from __future__ import annotations

import os
from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest
from PIL import Image

from kdlib.data import DatasetError, categories, load, open_image


def test_mask_of_another_size(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    trees.mask(root / "bottle" / "ground_truth" / "broken" / "000_mask.png", size=(10, 12))
    broken = load(root, size=8).test
    with pytest.raises(DatasetError, match=r"000_mask\.png is 10 x 12 \(width x height\).*000\.png is 12 x 10"):
        list(broken)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    trees.pictures(tmp_path / "normal", 4)
    os.mkfifo(tmp_path / "normal" / "x.png")
    with pytest.raises(DatasetError, match=r"x\.png is no file \(a broken link, a pipe or a device\)"):
        load(tmp_path)
    with pytest.raises(DatasetError, match=r"x\.png cannot be read as an image \(it is a folder, a pipe or a device\)"):
        open_image(tmp_path / "normal" / "x.png")
    os.mkfifo(tmp_path / "meta.json")
    (tmp_path / "normal" / "x.png").unlink()
    assert len(load(tmp_path).train) == 3


def test_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    trees.pictures(tmp_path, 4)
    for number in range(5):
        (tmp_path / f"{number}.HEIC").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"0\.HEIC, 1\.HEIC, 2\.HEIC and 2 more passed over"):
        load(tmp_path)


def test_one_normal_image_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"'bottle' has too few normal images \(1\) .* calib_share=0"):
        load(trees.mvtec(tmp_path / "a", train=1))
    assert len(load(tmp_path / "a", calib_share=0).train) == 1
    trees.pictures(tmp_path / "b" / "normal", 2)
    trees.pictures(tmp_path / "b" / "defects", 2)
    with pytest.raises(DatasetError, match=r"'b' has too few normal images \(2\)"):
        load(tmp_path / "b")
    assert len(load(trees.loco(tmp_path / "c")).calib) == 2


def test_check_warns_of_masks_without_a_defect(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    trees.mask(root / "bottle" / "ground_truth" / "crack" / "000_mask.png", value=0)
    with pytest.warns(UserWarning, match=r"1 anomalous images have a mask without a defect, such as .*crack.000\.png"):
        load(root).check()


def test_check_names_all_files_that_cannot_be_used(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    splits = load(root)
    splits.check()
    train, test, truth = (root / "bottle" / name for name in ("train/good", "test", "ground_truth"))
    (train / "001.png").write_bytes((train / "001.png").read_bytes()[:-40])
    (test / "good" / "000.png").write_bytes(b"")
    (test / "broken" / "002.png").unlink()
    trees.mask(truth / "broken" / "000_mask.png", size=(10, 12))
    (truth / "crack" / "000_mask.png").write_text("no picture")
    with pytest.raises(DatasetError) as caught:
        splits.check()
    lines = str(caught.value).splitlines()
    assert lines[0] == "5 of 16 images cannot be used:" and len(lines) == 6
    for name in ("001.png cannot", "000_mask.png is 10 x 12", "002.png is missing", "crack/000_mask.png cannot"):
        assert any(name in Path(line).as_posix() for line in lines[1:]), name
    splits.calib.check()
    with pytest.raises(DatasetError, match="4 of 6 images"):
        splits.test.check()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".tif", ".webp", ".gif", ".ppm"])
def test_check_finds_truncated_files_of_every_format(tmp_path: Path, suffix: str) -> None:
    path = trees.picture(tmp_path / f"0{suffix}", size=(64, 64))
    trees.picture(tmp_path / f"1{suffix}", size=(64, 64))
    splits = load(tmp_path)
    splits.check()
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 8 // 10])
    with pytest.raises(DatasetError, match=rf"1 of 2 images cannot be used:\n.*0\{suffix} cannot be read"):
        splits.check()


def test_floating_point_pixels_are_found_before_training(tmp_path: Path) -> None:
    trees.pictures(tmp_path, 3)
    Image.fromarray(np.float32([[0.5]])).save(tmp_path / "x.tif")
    with pytest.raises(DatasetError, match=r"x\.tif .*8 or 16 bits"):
        load(tmp_path).check()


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_not_text_can_be_printed(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    strange = os.fsdecode(b"kr\xe4ftig$^$")
    (root / "bottle" / "test" / "broken").rename(root / "bottle" / "test" / strange)
    (root / "bottle" / "ground_truth" / "broken").rename(root / "bottle" / "ground_truth" / strange)
    (root / "bottle").rename(root / strange)
    splits = load(root)
    assert splits.categories == ("kr\\udce4ftig$^$",) == categories(root)
    assert {sample.defect for sample in splits.test.samples} == {"normal", "crack", "kr\\udce4ftig$^$"}
    for text in (repr(splits.test), *splits.categories, *(sample.defect for sample in splits.test.samples)):
        text.encode("utf-8")
    assert splits.test.has_masks and len(list(load(root, splits.categories[0]).test)) == 6
    splits.test.fingerprint()
    (root / strange / "train" / "good" / "000.png").write_bytes(b"")
    with pytest.raises(DatasetError) as caught:
        list(load(root, calib_share=0).train)
    str(caught.value).encode("utf-8")


@pytest.mark.skipif(os.name == "nt", reason="names have one line there")
def test_names_have_one_line(tmp_path: Path) -> None:
    trees.mvtec(tmp_path / "set", "two\nlines")
    broken = tmp_path / "set" / "two\nlines" / "test" / "broken"
    broken.rename(broken.with_name("bro\r\nken"))
    (tmp_path / "set" / "two\nlines" / "ground_truth" / "broken").rename(
        tmp_path / "set" / "two\nlines" / "ground_truth" / "bro\r\nken"
    )
    splits = load(tmp_path / "set")
    assert splits.categories == (r"two\nlines",) == load(tmp_path / "set", r"two\nlines").categories
    assert {sample.defect for sample in splits.test.samples} == {"normal", "crack", r"bro\r\nken"}
    trees.pictures(tmp_path / "own\u2028folder 日本\u3000", 4)
    assert categories(tmp_path / "own\u2028folder 日本\u3000") == ("own\\u2028folder 日本\u3000",)
