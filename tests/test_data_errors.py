"""Every way in which a data set can be wrong gives a message that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dataset_trees as trees
import pytest

from kdlib.data import DatasetError, ImageSet, Sample, categories, load


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
    (tmp_path / "bottle" / "train" / "good" / "a.gif").write_bytes(b"")
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
    ("build", "stray"),
    [
        (trees.mvtec, "x.png"),
        (trees.mvtec, "bottle/x.png"),
        (trees.mvtec, "bottle/train/x.jpg"),
        (trees.mvtec, "bottle/test/x.png"),
        (trees.mvtec, "bottle/ground_truth/x.png"),
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


def test_mask_of_another_size(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    trees.mask(root / "bottle" / "ground_truth" / "broken" / "000_mask.png", size=(10, 12))
    broken = load(root, size=8).test
    with pytest.raises(DatasetError, match=r"000_mask\.png is 10 x 12 \(width x height\).*000\.png is 12 x 10"):
        list(broken)


def test_damaged_image_in_a_set_is_named(tmp_path: Path) -> None:
    path = trees.picture(tmp_path / "half.jpg")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DatasetError, match=r"half\.jpg cannot be read as an image"):
        ImageSet([Sample(path=path, category="c")], categories=["c"], size=(8, 8))[0]


@pytest.mark.parametrize("column", ["image", "mask"])
@pytest.mark.parametrize("escape", ["../secret.png", "candle/../../secret.png", "{tmp}/secret.png", "link/secret.png"])
def test_paths_in_lists_stay_inside(tmp_path: Path, column: str, escape: str) -> None:
    root = trees.visa_raw(tmp_path / "visa")
    trees.picture(tmp_path / "secret.png")
    (root / "link").symlink_to(tmp_path)
    outside = escape.format(tmp=tmp_path)
    line = {
        "image": f"candle,train,normal,{outside},",
        "mask": f"candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,{outside}",
    }
    with (root / "split_csv" / "1cls.csv").open("a") as file:
        file.write(line[column] + "\n")
    with pytest.raises(DatasetError, match=r"1cls\.csv names '.*secret\.png', which leads out of"):
        load(root)


def test_paths_in_meta_json_stay_inside_and_exist(tmp_path: Path) -> None:
    trees.picture(tmp_path / "secret.png")
    with pytest.raises(DatasetError, match=r"meta\.json names '\.\./secret\.png', which leads out"):
        load(trees.visa_meta(tmp_path / "a", img_path="../secret.png"))
    with pytest.raises(DatasetError, match=r"meta\.json names 'cashew/gone\.png', but .* does not exist"):
        load(trees.visa_meta(tmp_path / "b", mask_path="cashew/gone.png"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("candle,val,normal,a.JPG,", r"1cls\.csv, line 13: .*'val'.*train or test"),
        ("candle,train,good,a.JPG,", r"line 13.*normal or anomaly"),
        ("candle,train", "line 13"),
        (
            "candle,train,anomaly,candle/Data/Images/Anomaly/000.JPG,",
            "defective image .*000.JPG' into the training split",
        ),
    ],
)
def test_damaged_csv(tmp_path: Path, line: str, message: str) -> None:
    root = trees.visa_raw(tmp_path)
    with (root / "split_csv" / "1cls.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DatasetError, match=message):
        load(root)


@pytest.mark.parametrize("changes", [{"anomaly": "yes"}, {"anomaly": None}])
def test_damaged_meta_json(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(
        DatasetError, match=r"meta\.json: \{.*\} \(category 'cashew', test\) is not an object with img_path"
    ):
        load(trees.visa_meta(tmp_path, **changes))


def test_own_folder_refuses_what_it_cannot_tell_apart(tmp_path: Path) -> None:
    trees.pictures(tmp_path / "a", 3)
    trees.pictures(tmp_path / "a" / "results", 1)
    with pytest.raises(DatasetError, match="results holds images, but its name does not tell what they are"):
        load(tmp_path / "a")
    trees.pictures(tmp_path / "b" / "train" / "normal", 3)
    trees.pictures(tmp_path / "b" / "train" / "defect", 3)
    with pytest.raises(DatasetError, match="folder for defective images, among the normal images"):
        load(tmp_path / "b")
    trees.pictures(tmp_path / "c" / "normal", 3)
    trees.pictures(tmp_path / "c", 1)
    with pytest.raises(DatasetError, match="lies where only folders are expected"):
        load(tmp_path / "c")
    trees.pictures(tmp_path / "d", 3)
    trees.pictures(tmp_path / "d" / "test", 1)
    with pytest.raises(DatasetError, match="lies where only folders are expected"):
        load(tmp_path / "d")
