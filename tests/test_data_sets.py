"""Image sets behave as sequences, in several processes and from a bounded memory, and have a fingerprint."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import dataset_trees as trees
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from kdlib import data
from kdlib.data import DatasetError, ImageSet, join, load
from kdlib.data.memory import Memory


def paths(images: ImageSet) -> list[Path]:
    return [sample.path for sample in images.samples]


def two(root: Path, **options: object) -> data.Splits:
    trees.mvtec(root, "bottle")
    trees.mvtec(root, "cable")
    return load(root, size=8, **options)


def test_items_and_batches(tmp_path: Path) -> None:
    splits = load(trees.mvtec(tmp_path), size=(8, 14))
    item = splits.test[-1]
    assert item["index"] == len(splits.test) - 1
    assert item["image"].shape == (3, 8, 14) and item["image"].dtype == torch.float32
    assert item["image"].min() >= 0 and 0.5 < item["image"].max() <= 1
    assert item["mask"].shape == (1, 8, 14) and item["mask"].dtype == torch.bool
    with pytest.raises(IndexError):
        splits.test[6]
    for workers in (0, 2):
        batch = next(iter(DataLoader(splits.test.cached(), batch_size=6, num_workers=workers)))
        assert batch["image"].shape == (6, 3, 8, 14) and batch["mask"].shape == (6, 1, 8, 14)
        assert batch["label"].tolist() == splits.test.labels.tolist() and batch["index"].tolist() == list(range(6))


def test_subset_keeps_order_and_categories(tmp_path: Path) -> None:
    test = two(tmp_path).test
    part = test.subset(np.array([7, 2]))
    assert paths(part) == [test.samples[7].path, test.samples[2].path] and part.categories == test.categories
    assert [item["index"] for item in part] == [0, 1]


def test_pixels_survive_reading(tmp_path: Path) -> None:
    splits = load(trees.mvtec(tmp_path), size=(10, 12))
    stored = np.asarray(data.open_image(splits.train.samples[0].path))
    assert (splits.train[0]["image"] * 255 == torch.from_numpy(stored.transpose(2, 0, 1).copy())).all()


def test_cached_set_reads_each_file_once(tmp_path: Path) -> None:
    splits = load(trees.mvtec(tmp_path), size=8)
    cached = splits.test.cached()
    plain = list(splits.test)
    for item in cached:
        item["image"].zero_()
        item["mask"].fill_(True)
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    for again, item in zip(cached, plain, strict=True):
        assert torch.equal(again["image"], item["image"]) and torch.equal(again["mask"], item["mask"])
    assert torch.equal(cached.subset([3])[0]["image"], plain[3]["image"])
    with pytest.raises(DatasetError, match="is missing"):
        splits.test[0]
    with pytest.raises(DatasetError, match="is missing"):
        pickle.loads(pickle.dumps(cached))[0]


def test_white_level_of_a_set(tmp_path: Path) -> None:
    for number in range(3):
        values = np.full((8, 8), 341 * (number + 1), dtype=np.uint16)
        Image.fromarray(values).save(tmp_path / f"{number}.png")
    splits = load(tmp_path, size=8, calib_share=0, white=1023)
    assert [int(item["image"][0, 0, 0] * 255) for item in splits.train.subset([2, 0]).cached()] == [255, 85]
    assert splits.train.white == 1023
    assert splits.of(tmp_path.name).train.white == 1023 and join([splits]).train.white == 1023
    assert splits.train.fingerprint() != load(tmp_path, size=8, calib_share=0, white=4095).train.fingerprint()
    with pytest.warns(UserWarning, match=r"no pixel above 1023: scaled by 65535, 5 grey levels .* give white=1023"):
        list(load(tmp_path, size=8, calib_share=0).train)
    with pytest.raises(DatasetError, match="different white levels"):
        join([splits, load(trees.mvtec(tmp_path / "b"), size=8)])


def test_pixels_are_the_image_in_bytes(tmp_path: Path) -> None:
    test = load(trees.mvtec(tmp_path), size=(8, 14)).test
    for images in (test, test.cached(), test.cached(budget=0)):
        for _ in range(2):
            for index, item in enumerate(images):
                pixels = images.pixels(index)
                assert pixels.dtype == torch.uint8 and pixels.shape == (3, 8, 14)
                assert torch.equal(pixels.float() / 255, item["image"])
                pixels.zero_()
    with pytest.raises(IndexError):
        test.pixels(6)


def test_pixels_need_no_mask(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    test = load(root, size=8).test.cached()
    truth = [sample.mask_path for sample in test.samples if sample.mask_path]
    truth[0].unlink()
    assert test.pixels(0).shape == (3, 8, 8)
    with pytest.raises(DatasetError, match="is missing"):
        test[0]
    trees.mask(truth[0])
    assert test[0]["mask"].sum() == 32


def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (opened.append(path), read(path))[1])
    train = load(trees.mvtec(tmp_path, train=10), size=8, calib_share=0).train
    cached = train.cached(budget=4 * 3 * 8 * 8 + 50)  # bytes of four images and a bit
    for _ in range(3):
        for index in range(10):
            assert torch.equal(cached.pixels(index).float() / 255, train[index]["image"])
    assert len(opened) == 30 + 10 + 2 * 6  # the plain set; the first pass; what did not fit, twice
    assert cached.subset([0, 1])._memory is cached._memory is not None
    assert cached._memory.used == 4 * 3 * 8 * 8


def test_workers_share_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(100)
    monkeypatch.setattr("kdlib.data.memory.get_worker_info", lambda: SimpleNamespace(num_workers=4))
    memory.keep("a", torch.zeros(20, dtype=torch.uint8))
    memory.keep("b", torch.zeros(20, dtype=torch.uint8))
    assert memory.get("a") is not None and memory.get("b") is None and memory.used == 20
    copy = pickle.loads(pickle.dumps(memory))
    assert copy.budget == 100 and copy.used == 0 and copy.get("a") is None


def test_fingerprint_is_that_of_the_content(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path / "a")
    first = load(root, size=8)
    one = first.test.fingerprint()
    assert len(one) == 32 and int(one, 16)
    elsewhere = tmp_path / "somewhere" / "else"
    shutil.copytree(root, elsewhere)
    again = load(elsewhere, size=8)
    assert again.test.fingerprint() == one and again.train.fingerprint() == first.train.fingerprint() != one
    assert again.test.cached().fingerprint() == one
    assert load(root, size=9).test.fingerprint() != one
    assert first.test.subset([1, 0]).fingerprint() != first.test.subset([0, 1]).fingerprint()

    image, truth = (elsewhere / "bottle" / name for name in ("test/good/000.png", "ground_truth/crack/000_mask.png"))
    for path in (image, truth):
        before, times = path.read_bytes(), path.stat()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert load(elsewhere, size=8).test.fingerprint() != one
        path.write_bytes(before)
    assert load(elsewhere, size=8).test.fingerprint() == one
    (elsewhere / "bottle" / "test" / "crack").rename(elsewhere / "bottle" / "test" / "dent")
    (elsewhere / "bottle" / "ground_truth" / "crack").rename(elsewhere / "bottle" / "ground_truth" / "dent")
    assert load(elsewhere, size=8).test.fingerprint() != one
    image.unlink()
    with pytest.raises(DatasetError, match=r"000\.png cannot be read"):
        again.test.fingerprint()


def test_fingerprint_of_a_folder_of_masks(tmp_path: Path) -> None:
    root = trees.loco(tmp_path)
    one = load(root).test.fingerprint()
    trees.mask(root / "pushpins" / "ground_truth" / "logical_anomalies" / "001" / "001.png", value=7)
    assert load(root).test.fingerprint() != one
