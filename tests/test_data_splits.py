"""Splits are the same everywhere; where data lies; options that cannot be."""

from __future__ import annotations

import os
import time
from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest

from kdlib import data
from kdlib.data import DatasetError, ImageSet, categories, data_folder, join, load
from kdlib.data.generated import Generated


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

    monkeypatch.setattr("kdlib.data.generated.offered", offer)
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


@pytest.mark.parametrize("white", [0, 100, 65536, -1])
def test_white_levels_that_cannot_be(tmp_path: Path, white: int) -> None:
    with pytest.raises(DatasetError, match=r"white=.* must lie between 255 and 65535"):
        load(trees.mvtec(tmp_path), white=white)


def test_long_lists_are_quick(tmp_path: Path) -> None:
    root = trees.visa_raw(tmp_path)
    small = (root / "candle" / "Data" / "Images" / "Normal" / "000.JPG").read_bytes()
    lines = []
    for number in range(1_000):
        (root / "candle" / f"{number}.jpg").write_bytes(small)
        lines.append(f"candle,train,normal,candle/{number}.jpg,\n")
    with (root / "split_csv" / "1cls.csv").open("a") as file:
        file.writelines(lines)
    start = time.process_time()
    assert len(load(root, calib_share=0).train) == 1_006
    assert time.process_time() - start < 2
