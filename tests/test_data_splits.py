"""Splits are the same everywhere; image sets behave as sequences, in several processes and from memory."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from types import ModuleType

import dataset_trees as trees
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from kdlib import data
from kdlib.data import DatasetError, ImageSet, data_folder, join, load


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
    ("train", "share", "calib"), [(1, 0.2, 0), (2, 0.2, 1), (2, 0.99, 1), (10, 0.2, 2), (10, 0.0, 0), (10, 0.5, 5)]
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


@pytest.mark.parametrize("name", ["workshop", "mill"])
def test_rendered_sets_are_rendered_on_demand(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def render(root: Path, *, of: str, categories: list[str] | None = None) -> Path:
        asked.append((of, categories))
        return trees.mvtec(root, "capsule")

    workshop = ModuleType("kdlib.course.rendered")
    workshop.render = render  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kdlib.course.rendered", workshop)
    monkeypatch.setattr(datasets, "workshop", workshop, raising=False)
    monkeypatch.setenv("KDLIB_DATA", str(tmp_path))
    splits = load(name, "capsule", size=8)
    assert asked == [(name, ["capsule"])] and splits.licence == "Apache-2.0, rendered by kdlib"
    assert splits.test.samples[0].path.is_relative_to(tmp_path / name / "capsule")
    assert load(tmp_path / name / "capsule").licence == splits.licence and len(asked) == 1
