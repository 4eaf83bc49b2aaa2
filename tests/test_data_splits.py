"""Splits are the same everywhere; image sets behave as sequences, in several processes and from memory."""

from __future__ import annotations

import os
import pickle
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import dataset_trees as trees
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from kdlib import data
from kdlib.data import DatasetError, ImageSet, categories, data_folder, join, load
from kdlib.data.generated import Generated
from kdlib.data.memory import Memory


def paths(images: ImageSet) -> list[Path]:
    return [sample.path for sample in images.samples]


def two(root: Path, **options: object) -> data.Splits:
    trees.mvtec(root, "bottle")
    trees.mvtec(root, "cable")
    return load(root, size=8, **options)


def test_calibration_share_depends_on_the_seed_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = trees.mvtec(tmp_path, train=30)
    first = load(root)
    assert len(first.calib) == 6 and not set(paths(first.train)) & set(paths(first.calib))
    assert paths(first.calib) == sorted(paths(first.calib)) and paths(first.train) == sorted(paths(first.train))
    assert paths(load(root, seed=1).calib) != paths(first.calib)

    class Reversed(list):
        def __enter__(self) -> Reversed:
            return self

        def __exit__(self, *_: object) -> None: ...

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: Reversed(reversed(sorted(scandir(folder), key=lambda e: e.name))))
    assert paths(load(root).calib) == paths(first.calib) and paths(load(root).test) == paths(first.test)


@pytest.mark.parametrize(
    ("train", "share", "calib"), [(2, 0.2, 1), (2, 0.99, 1), (10, 0.2, 2), (10, 0.0, 0), (10, 0.5, 5)]
)
def test_size_of_the_calibration_share(tmp_path: Path, train: int, share: float, calib: int) -> None:
    splits = load(trees.mvtec(tmp_path, train=train), calib_share=share)
    assert (len(splits.train), len(splits.calib)) == (train - calib, calib)


def test_all_categories_together(tmp_path: Path) -> None:
    splits = two(tmp_path)
    assert splits.categories == splits.test.categories == ("bottle", "cable")
    assert [item["category"] for item in splits.test] == [0] * 6 + [1] * 6
    cable = splits.of("cable")
    assert cable.categories == ("cable",) and cable.test.categories == ("bottle", "cable")
    assert {item["category"] for item in cable.test} == {1}
    alone = load(tmp_path, "cable")
    assert paths(alone.calib) == paths(cable.calib) and alone.test[0]["category"] == 0
    assert load(tmp_path, ["cable", "bottle", "cable"]).categories == ("cable", "bottle")


def test_join_of_different_roots(tmp_path: Path) -> None:
    first, second = two(tmp_path / "a"), load(trees.btad(tmp_path / "b"), "01", size=8)
    both = join([first, second])
    assert both.categories == ("bottle", "cable", "01") and len(both.train) == len(first.train) + len(second.train)
    assert both.of("01").test[0]["category"] == 2
    assert both.licence == "CC BY-NC-SA 4.0, non-commercial (MVTec AD); CC BY-NC-SA 4.0, non-commercial (BTAD)"
    with pytest.raises(DatasetError, match=r"\['bottle'\] occur in more than one"):
        join([first, load(tmp_path / "a", "bottle", size=8)])
    with pytest.raises(DatasetError, match=r"different image sizes \[\(8, 8\), \(9, 9\)\]"):
        join([first, load(tmp_path / "b", size=9)])
    with pytest.raises(DatasetError, match="empty list"):
        join([])


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


def test_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KDLIB_DATA", raising=False)
    inner = tmp_path / "repository" / "notebooks"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    assert data_folder() == inner / "data"
    (inner / "00_start_here.ipynb").write_text("{}")
    assert data_folder() == tmp_path / "repository" / "data"
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "other"\n')
    monkeypatch.chdir(tmp_path)
    assert data_folder() == tmp_path / "data"
    deep = tmp_path / "project" / "some" / "where"
    deep.mkdir(parents=True)
    (tmp_path / "project" / "pyproject.toml").write_text('[project]\nname = "kdlib"\n')
    monkeypatch.chdir(deep)
    assert data_folder() == tmp_path / "project" / "data"
    monkeypatch.setenv("KDLIB_DATA", str(tmp_path / "elsewhere"))
    assert data_folder() == tmp_path / "elsewhere"


Asked = list[tuple[str, list[str] | None]]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """What was asked of generated sets, which are made of a few random pictures, below tmp_path/data."""
    calls: Asked = []

    def offer(name: str) -> Generated | None:
        def make(folder: Path, categories: list[str] | None) -> None:
            calls.append((name, categories))
            trees.mvtec(folder, "capsule")

        return Generated(make=make, licence=f"licence of {name}") if name in ("workshop", "mill") else None

    monkeypatch.setattr("kdlib.data.generated.generated", offer)
    monkeypatch.setenv("KDLIB_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return calls


@pytest.mark.parametrize("name", ["workshop", "mill"])
def test_rendered_sets_are_rendered_on_demand(name: str, tmp_path: Path, asked: Asked) -> None:
    splits = load(name, "capsule", size=8)
    assert asked == [(name, ["capsule"])] and splits.licence == f"licence of {name}"
    assert splits.test.samples[0].path.is_relative_to(tmp_path / "data" / name / "capsule")
    assert load(tmp_path / "data" / name / "capsule").licence == splits.licence and len(asked) == 1


def test_a_folder_with_the_name_of_a_rendered_set(tmp_path: Path, asked: Asked) -> None:
    trees.pictures(tmp_path / "mill" / "normal", 5)
    for given in ("./mill", Path("mill"), tmp_path / "mill", str(tmp_path / "mill")):
        assert load(given).categories == ("mill",) and load(given).licence == ""
    with pytest.raises(DatasetError, match=r"'mill' is the name of a set that kdlib makes \(in .*data.mill\)"):
        load("mill")
    with pytest.raises(DatasetError, match=r"Give './mill' or Path\('mill'\) for the folder; for the set that kdlib"):
        categories("mill")
    assert not asked
    (tmp_path / "workshop").mkdir()  # a folder without images is none
    assert load("workshop").categories == ("capsule",)


def test_a_rendered_set_in_the_current_folder_is_itself(
    tmp_path: Path, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("mill")
    monkeypatch.chdir(tmp_path / "data")
    assert load("mill").licence == "licence of mill"


@pytest.mark.parametrize("size", ["64", 2.5, (8, 2.5), (8,), (8, 8, 8), None])
def test_sizes_that_are_none(tmp_path: Path, size: object) -> None:
    with pytest.raises(DatasetError, match="must be a whole number of pixels, or two"):
        load(trees.mvtec(tmp_path), size=size)


def test_sizes_of_numpy(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    assert load(root, size=np.int64(8)).train.size == (8, 8) == load(root, size=[np.int32(8), 8]).train.size
    assert type(load(root, size=np.int64(8)).train.size[0]) is int


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


@pytest.mark.parametrize("white", [0, 100, 65536, -1])
def test_white_levels_that_cannot_be(tmp_path: Path, white: int) -> None:
    with pytest.raises(DatasetError, match=r"white=.* must lie between 255 and 65535"):
        load(trees.mvtec(tmp_path), white=white)


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


def test_long_lists_are_quick(tmp_path: Path) -> None:
    root = trees.visa_raw(tmp_path)
    small = (root / "candle" / "Data" / "Images" / "Normal" / "000.JPG").read_bytes()
    lines = []
    for number in range(10_000):
        (root / "candle" / f"{number}.jpg").write_bytes(small)
        lines.append(f"candle,train,normal,candle/{number}.jpg,\n")
    with (root / "split_csv" / "1cls.csv").open("a") as file:
        file.writelines(lines)
    start = time.process_time()
    assert len(load(root, calib_share=0).train) == 10_006
    assert time.process_time() - start < 10
