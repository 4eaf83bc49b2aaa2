"""Every way in which a data set can be wrong gives a message that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest

from kdlib.data import DatasetError, categories, load


def test_wrong_root(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        load(tmp_path / "gone")
    with pytest.raises(DatasetError, match="is a file, not a folder"):
        load(trees.picture(tmp_path / "a.png"))


def test_unknown_tree_says_what_was_looked_for_and_found(tmp_path: Path) -> None:
    (tmp_path / "papers").mkdir()
    with pytest.raises(DatasetError, match=r"(?s)visa: .*mvtec: CATEGORY/train/good.*folder: .*Found: papers/\.$"):
        load(tmp_path)
    trees.mvtec(tmp_path / "sets")
    with pytest.raises(DatasetError, match=r"One folder further down there is: sets \(mvtec\)"):
        categories(tmp_path)


def test_wrong_layout(tmp_path: Path) -> None:
    root = trees.btad(tmp_path)
    with pytest.raises(DatasetError, match=r"(?s)mvtec: CATEGORY/train/good.*It looks like layout='btad'"):
        load(root, layout="mvtec")
    with pytest.raises(DatasetError, match=r"Unknown layout 'vis'. Did you mean 'visa'\? Known: auto, visa"):
        load(root, layout="vis")


@pytest.mark.parametrize("layout", ["auto", "mvtec"])
def test_no_images(tmp_path: Path, layout: str) -> None:
    (tmp_path / "bottle" / "train" / "good").mkdir(parents=True)
    (tmp_path / "bottle" / "train" / "good" / "a.txt").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"No normal training images for category 'bottle'.*found: train/"):
        load(tmp_path, layout=layout)


def test_unknown_category_lists_the_known(tmp_path: Path) -> None:
    trees.mvtec(tmp_path, "bottle")
    trees.mvtec(tmp_path, "cable")
    with pytest.raises(DatasetError, match=r"'botle'\. Did you mean 'bottle'\? Known: bottle, cable\.$"):
        load(tmp_path, ["cable", "botle"])
    (tmp_path / "screw" / "train").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"Known: bottle, cable\. The folder .*screw exists, but"):
        load(tmp_path, "screw")
    with pytest.raises(DatasetError, match="chooses nothing; give None for all of bottle, cable"):
        load(tmp_path, [])
    with pytest.raises(DatasetError, match="Unknown category 'x'"):
        load(tmp_path).test.of("x")


@pytest.mark.parametrize("options", [{"size": 0}, {"size": (8, -1)}, {"calib_share": 1.0}, {"calib_share": -0.1}])
def test_impossible_options(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(DatasetError, match="must be positive and calib_share"):
        load(trees.mvtec(tmp_path), **options)


@pytest.mark.parametrize(
    "options", [{"white": 1023.5}, {"white": "a"}, {"white": 9}, {"seed": 1.5}, {"seed": -1}, {"seed": 2**32}]
)
def test_options_that_are_whole_numbers(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"(between 255 and 65535, a whole number|whole number from 0 to 4294967295)"):
        load(trees.mvtec(tmp_path), **options)
    assert type(load(tmp_path, white=np.int64(1023)).train.white) is int


@pytest.mark.parametrize("target", [".", "x"])
def test_links_in_a_circle_are_named(tmp_path: Path, target: str) -> None:
    trees.pictures(tmp_path / "normal", 4)
    (tmp_path / "normal" / "x").symlink_to(target)
    with pytest.raises(
        DatasetError, match=r"normal.x is a link that leads (back to a folder in which it lies|to nothing .*)\. Remove"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("build", "stray"),
    [
        (trees.mvtec, "x.png"),
        (trees.mvtec, "bottle/x.png"),
        (trees.mvtec, "bottle/train/x.jpg"),
        (trees.mvtec, "bottle/test/x.png"),
        (trees.mvtec, "bottle/ground_truth/x.png"),
        (trees.loco, "pushpins/ground_truth/x.png"),
        (trees.loco, "pushpins/validation/x.png"),
        (trees.ad2, "vial/test_public/x.png"),
        (trees.mvtec3d, "bagel/train/good/x.png"),
        (trees.mvtec3d, "bagel/test/hole/x.png"),
        (lambda root: trees.bmad(root, "Brain", "label"), "Brain/test/Ungood/x.png"),
        (lambda root: trees.bmad(root, "RSNA", None), "RSNA/valid/x.png"),
        (trees.btad, "BTech_Dataset_transformed/01/test/x.bmp"),
    ],
)
def test_image_where_a_folder_is_expected(tmp_path: Path, build: Callable[[Path], Path], stray: str) -> None:
    root = build(tmp_path)
    trees.picture(root / stray)
    with pytest.raises(DatasetError, match=rf"{Path(stray).name} lies where only folders are expected \(found: "):
        load(root)


@pytest.mark.parametrize(
    ("build", "mask"),
    [
        (trees.mvtec, "bottle/ground_truth/broken/001_mask.png"),
        (trees.ad2, "vial/test_public/ground_truth/bad/001_mask.png"),
        (trees.mvtec3d, "bagel/test/hole/gt/001.png"),
        (lambda root: trees.bmad(root, "Liver", "label"), "Liver/test/Ungood/label/001.png"),
        (trees.btad, "BTech_Dataset_transformed/01/ground_truth/ko/001.png"),
        (trees.visa_reorganised, "1cls/pcb1/ground_truth/bad/001.png"),
    ],
)
def test_missing_mask(tmp_path: Path, build: Callable[[Path], Path], mask: str) -> None:
    root = build(tmp_path)
    (root / mask).unlink()
    with pytest.raises(
        DatasetError, match=r"No mask for .*001.*: expected 001_mask\.png or 001\.png in .* holds 2 masks"
    ):
        load(root)


def test_masks_missing_for_a_whole_defect(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    (root / "bottle" / "ground_truth" / "crack").rename(root / "bottle" / "ground_truth" / "carck")
    with pytest.raises(DatasetError, match=r"No mask for .*crack.000\.png"):
        load(root)


def test_own_folder_refuses_what_it_cannot_tell_apart(tmp_path: Path) -> None:
    trees.pictures(tmp_path / "a", 3)
    trees.pictures(tmp_path / "a" / "results", 1)
    with pytest.raises(DatasetError, match="results holds images, but its name does not tell what they are"):
        load(tmp_path / "a")
    trees.pictures(tmp_path / "b" / "train" / "normal", 3)
    trees.pictures(tmp_path / "b" / "train" / "defect", 3)
    with pytest.raises(DatasetError, match=r"train.defect holds images .* training and calibration need normal images"):
        load(tmp_path / "b")
    trees.pictures(tmp_path / "c" / "normal", 3)
    trees.pictures(tmp_path / "c", 1)
    with pytest.raises(DatasetError, match="lies where only folders are expected"):
        load(tmp_path / "c")
    trees.pictures(tmp_path / "d", 3)
    trees.pictures(tmp_path / "d" / "test", 1)
    with pytest.raises(DatasetError, match="lies where only folders are expected"):
        load(tmp_path / "d")


@pytest.mark.parametrize(
    ("build", "folder"),
    [
        (trees.mvtec, "bottle/train/good/X"),
        (trees.mvtec, "bottle/train/def"),
        (trees.mvtec, "bottle/train/monday"),
        (trees.mvtec, "bottle/test/broken/X"),
        (trees.mvtec, "bottle/test/good/X/Y"),
        (trees.mvtec, "bottle/more"),
        (trees.mvtec, "bottle/validation/bad"),
        (trees.loco, "pushpins/test/structural_anomalies/X"),
        (trees.ad2, "vial/test_public/bad/X"),
        (trees.mvtec3d, "bagel/train/good/X"),
        (trees.mvtec3d, "bagel/train/bad/rgb"),
        (trees.mvtec3d, "bagel/test/hole/rgb/X"),
        (lambda root: trees.bmad(root, "Brain", "label"), "Brain/test/Ungood/img/X"),
        (lambda root: trees.bmad(root, "Brain", "label"), "Brain/train/Ungood"),
        (lambda root: trees.bmad(root, "RSNA", None), "RSNA/test/Ungood/X"),
        (lambda root: trees.bmad(root, "RSNA", None), "RSNA/test/other"),
        (trees.btad, "BTech_Dataset_transformed/01/train/ko"),
        (trees.btad, "BTech_Dataset_transformed/01/test/ok/X"),
        (trees.visa_reorganised, "1cls/pcb1/test/bad/X"),
    ],
)
def test_images_that_no_split_takes(tmp_path: Path, build: Callable[[Path], Path], folder: str) -> None:
    root = build(tmp_path)
    trees.pictures(root / folder, 1)
    with pytest.raises(DatasetError, match=r"holds images that belong to no split"):
        load(root)


@pytest.mark.parametrize(
    "inner", ["defects/good", "defects/masks", "test/dent/ok", "normal/masks", "ok/a/ng", "normal/bad"]
)
def test_own_folders_that_contradict_each_other(tmp_path: Path, inner: str) -> None:
    trees.pictures(tmp_path / "normal", 4)
    trees.pictures(tmp_path / inner, 2)
    with pytest.raises(DatasetError, match=f"is a folder '{Path(inner).name}' among the images of"):
        load(tmp_path)


def test_two_images_share_no_mask(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    trees.picture(root / "bottle" / "test" / "broken" / "000.bmp", seed=9)
    with pytest.raises(DatasetError, match=r"000\.bmp and 000\.png share the mask .*000_mask\.png"):
        load(root)


def test_one_image_has_one_mask(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    trees.mask(root / "bottle" / "ground_truth" / "broken" / "000_mask.bmp")
    with pytest.raises(DatasetError, match=r"broken.000\.png has 2 masks: .*000_mask\.bmp, .*000_mask\.png"):
        load(root)
    (root / "bottle" / "ground_truth" / "broken" / "000_mask.bmp").unlink()
    trees.mask(root / "bottle" / "test" / "broken" / "000_mask.png")
    with pytest.raises(DatasetError, match=r"broken.000\.png has 2 masks: .*ground_truth.*, .*test"):
        load(root)


def test_folders_that_differ_in_case_only(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    (root / "bottle" / "Test").mkdir()
    if len(list((root / "bottle").glob("[tT]est"))) == 2:  # not on every file system
        with pytest.raises(DatasetError, match="holds Test, test, which mean the same"):
            load(root)


def test_a_category_in_another_layout_is_named(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    trees.pictures(root / "cable" / "train" / "fine", 3)
    with pytest.warns(UserWarning, match=r"cable is passed over: it is not laid out like bottle"):
        assert categories(root) == ("bottle",)
