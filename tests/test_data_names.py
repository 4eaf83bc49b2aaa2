"""Names of folders and masks beside images mean the same in every layout."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest
from PIL import Image
from test_data_layouts import LAYOUT_CASES, counts

from kdlib.data import DatasetError, categories, load

Builder = Callable[[Path], Path]


@pytest.mark.parametrize(
    ("build", "train", "test", "name"),
    [
        (trees.mvtec, "bottle/train/good", "bottle/test/good", "Good"),
        (trees.loco, "pushpins/train/good", "pushpins/test/good", "normal"),
        (trees.ad2, "vial/train/good", "vial/test_public/good", "OK"),
        (trees.mvtec3d, "bagel/train/good", "bagel/test/good", "Healthy"),
        (lambda root: trees.bmad(root, "Brain", "label"), "Brain/train/good", "Brain/test/good", "defect-free"),
        (lambda root: trees.bmad(root, "RSNA", None), "RSNA/train/good", "RSNA/test/good", "ok"),
        (trees.btad, "BTech_Dataset_transformed/01/train/ok", "BTech_Dataset_transformed/01/test/ok", "defect_free"),
        (trees.visa_reorganised, "1cls/pcb1/train/good", "1cls/pcb1/test/good", "Normal"),
    ],
)
def test_normal_has_many_names(tmp_path: Path, build: Builder, train: str, test: str, name: str) -> None:
    root = build(tmp_path)
    first = train.split("/")[-3]
    expected = counts(load(root, first))
    for old in (root / train, root / test):
        moved = old.rename(old.with_name("moved"))
        moved.rename(old.with_name(name))
    splits = load(root, first)
    assert counts(splits) == expected
    assert {s.path.relative_to(root).parts[train.count("/")] for s in splits.test.samples if not s.label} == {name}


@pytest.mark.parametrize("case", ["mvtec", "mvtec loco", "mvtec ad2", "mvtec3d", "btad", "bmad Brain", "bmad RSNA"])
def test_folders_in_capitals(tmp_path: Path, case: str) -> None:
    name, build, known, expected, has_masks = LAYOUT_CASES[case]
    root = build(tmp_path)
    base = root / "BTech_Dataset_transformed" if name == "btad" else root
    for folder in sorted((p for p in base.rglob("*") if p.is_dir() and p.parent != base), reverse=True):
        shouted = folder.with_name(folder.name.upper())
        if folder.name.isalpha() or "_" in folder.name:
            folder.rename(folder.with_name("moving"))
            folder.with_name("moving").rename(shouted)
    splits = load(root, known[0])
    assert categories(root) == known and counts(splits) == expected and splits.test.has_masks == has_masks
    assert load(root, known[0], layout=name).licence == splits.licence


def test_masks_of_loco_are_joined(tmp_path: Path) -> None:
    root = trees.loco(tmp_path)
    truth = root / "pushpins" / "ground_truth" / "structural_anomalies" / "001"
    trees.mask(truth / "001.png").unlink()
    pixels = np.zeros((10, 12), dtype=np.uint8)
    pixels[9, 11] = 3
    Image.fromarray(pixels).save(truth / "001.png")
    test = load(root, size=(10, 12)).test
    assert [s.defect for s in test.samples] == ["normal"] * 2 + ["logical_anomalies"] * 2 + ["structural_anomalies"] * 2
    assert [int(item["mask"].sum()) for item in test] == [0, 0, 60, 60, 60, 61]
    trees.mask(truth / "002.png", size=(12, 11))
    with pytest.raises(DatasetError, match=r"folder .*001 holds 12 x 10, 12 x 11; expected masks of one image"):
        list(load(root).test)


@pytest.mark.parametrize("folder", ["train/good", "test/good", "test/broken", "test/crack"])
def test_a_mask_beside_its_image_is_no_image(tmp_path: Path, folder: str) -> None:
    root = trees.mvtec(tmp_path, truth=False)
    count = len(list((root / "bottle" / folder).iterdir()))
    trees.masks(root / "bottle" / folder, count, "_Mask.png")
    splits = load(root)
    assert counts(splits) == (8, 2, 6, 4)
    assert sum(s.mask_path is not None for s in splits.test.samples) == (
        count if folder in ("test/broken", "test/crack") else 0
    )


@pytest.mark.parametrize(
    ("build", "folder", "expected"),
    [
        (trees.mvtec3d, "bagel/test/hole/rgb", (5, 2, 5, 3)),
        (lambda root: trees.bmad(root, "RSNA", None), "RSNA/test/Ungood", (5, 2, 5, 3)),
        (lambda root: trees.bmad(root, "RSNA", None), "RSNA/valid/good", (5, 2, 5, 3)),
        (trees.btad, "BTech_Dataset_transformed/02/train/ok", (4, 1, 5, 3)),
        (trees.ad2, "vial/train/good", (5, 2, 5, 3)),
        (trees.visa_reorganised, "1cls/pcb1/test/good", (5, 1, 5, 3)),
    ],
)
def test_masks_beside_images_in_all_layouts(
    tmp_path: Path, build: Builder, folder: str, expected: tuple[int, int, int, int]
) -> None:
    root = build(tmp_path)
    if (root / "bagel" / "test" / "hole" / "gt").exists():
        shutil.rmtree(root / "bagel" / "test" / "hole" / "gt")
    for image in list((root / folder).iterdir()):
        trees.mask(image.with_name(f"{image.stem}_mask.png"))
    assert counts(load(root, "02" if build is trees.btad else None)) == expected


def test_of_two_files_with_one_stem_the_mask_is_no_image(tmp_path: Path) -> None:
    for folder in ("normal", "defects/blowhole"):
        trees.pictures(tmp_path / folder, 5, ".jpg")
        trees.masks(tmp_path / folder, 5, ".png")
    splits = load(tmp_path, size=8)
    assert counts(splits) == (3, 1, 6, 5) and splits.test.has_masks
    assert {s.path.suffix for part in (splits.train, splits.calib, splits.test) for s in part.samples} == {".jpg"}
    assert [int(item["mask"].sum()) for item in splits.test] == [32] * 5 + [0]


def test_two_photographs_with_one_stem_are_two_images(tmp_path: Path) -> None:
    trees.pictures(tmp_path, 3, ".jpg")
    trees.pictures(tmp_path, 3, ".png")
    assert len(load(tmp_path, calib_share=0).train) == 6


def test_a_defect_may_be_called_train(tmp_path: Path) -> None:
    trees.pictures(tmp_path / "normal", 5)
    trees.pictures(tmp_path / "defects" / "train", 2)
    trees.pictures(tmp_path / "test" / "Train", 1)
    defects = [s.defect for s in load(tmp_path).test.samples if s.label]
    assert defects == ["train", "train", "Train"]


def test_masks_folder_in_the_mvtec_layout(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    (root / "bottle" / "ground_truth").rename(root / "bottle" / "Masks")
    assert load(root).test.has_masks
    trees.masks(root / "bottle" / "test" / "ground_truth" / "broken", 3)
    with pytest.raises(DatasetError, match=r"Masks lie in .*Masks and in .*test.ground_truth"):
        load(root)
    shutil.rmtree(root / "bottle" / "Masks")
    trees.masks(root / "bottle" / "test" / "ground_truth" / "crack", 1)
    assert counts(load(root)) == (8, 2, 6, 4) and load(root).test.has_masks
