"""Every way in which a data set can be wrong gives a message that says what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest
from PIL import Image

from kdlib.data import DatasetError, ImageSet, Sample, categories, load, open_image


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
    trees.picture(root / "candle" / "new.png")
    (root / "link").symlink_to(tmp_path)
    outside = escape.format(tmp=tmp_path)
    line = {
        "image": f"candle,train,normal,{outside},",
        "mask": f"candle,test,anomaly,candle/new.png,{outside}",
    }
    with (root / "split_csv" / "1cls.csv").open("a") as file:
        file.write(line[column] + "\n")
    with pytest.raises(DatasetError, match=r"1cls\.csv, line 13 names '.*secret\.png', which leads out of"):
        load(root)


def test_paths_in_meta_json_stay_inside_and_exist(tmp_path: Path) -> None:
    trees.picture(tmp_path / "secret.png")
    with pytest.raises(
        DatasetError, match=r"meta\.json, 'test', 'cashew', item 4 names '\.\./secret\.png', which leads out"
    ):
        load(trees.visa_meta(tmp_path / "a", img_path="../secret.png"))
    with pytest.raises(DatasetError, match=r"item 4 names 'cashew/gone\.png', but .* does not exist"):
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


@pytest.mark.parametrize(
    "changes",
    [
        {"anomaly": "yes"},
        {"anomaly": None},
        {"anomaly": 2},
        {"img_path": None},
        {"mask_path": 3},
        {"specie_name": ["a"]},
    ],
)
def test_damaged_item_of_meta_json(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(
        DatasetError, match=r"meta\.json, 'test', 'cashew', item 4: \{.*\} is not an object with img_path"
    ):
        load(trees.visa_meta(tmp_path, **changes))


def test_meta_json_contradicts_itself(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"item 4: .* is an anomaly of the kind 'Good'"):
        load(trees.visa_meta(tmp_path, specie_name="Good"))


@pytest.mark.parametrize("items", ["null", "3", '{"a": 1}', "[null]", "[[]]", '["x.png"]'])
def test_meta_json_with_other_things_than_lists_of_objects(tmp_path: Path, items: str) -> None:
    (tmp_path / "meta.json").write_text(f'{{"train": {{"a": {items}}}, "test": {{}}}}')
    with pytest.raises(DatasetError, match=r"meta\.json.*'a'.*img_path, mask_path, specie_name and anomaly"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", r"meta\.json is damaged \(Expecting"),
        (b"\xff\xfe{", r"meta\.json is damaged \('utf-8' codec"),
        (b"[" * 200_000, r"meta\.json is damaged"),
        (b"[1]", r"meta\.json has not the form \{\"train\""),
        (b'{"train": [], "test": []}', r"meta\.json has not the form \{\"train\""),
        (b'{"train": {}, "test": {"a": []}}', r"meta\.json lists no images"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*meta.json is damaged")
def test_a_damaged_meta_json_is_said_to_be_damaged(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "meta.json").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"(?s)No data set in .*{problem}"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "lists no images"),
        (b"object,split,label,image,mask\n", "lists no images"),
        (b"\xff\xfeo", r"is damaged \('utf-8' codec"),
        (b"object,split,label,image,mask\n" + b"a" * 200_000 + b",train,normal,b,\n", "is damaged .*field larger"),
        (b"object;split;label;image;mask\na;train;normal;b;\n", "line 2: .* has not the columns"),
    ],
)
def test_a_damaged_csv_is_said_to_be_damaged(tmp_path: Path, content: bytes, problem: str) -> None:
    trees.pictures(tmp_path / "normal", 4)  # not taken for an own folder
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv" / "1cls.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=rf"1cls\.csv,? {problem}"):
        load(tmp_path)


@pytest.mark.parametrize("category", ["../../x", "a/b", "..", "a\\b", "C:", "a\x00b", "line\nbreak"])
def test_a_listed_category_is_a_plain_name(tmp_path: Path, category: str) -> None:
    item = {"img_path": "a.png", "mask_path": "", "specie_name": "", "anomaly": 0}
    (tmp_path / "meta.json").write_text(json.dumps({"train": {category: [item]}, "test": {}}))
    with pytest.raises(DatasetError, match="cannot be the name of a folder"):
        categories(tmp_path)


def test_the_csv_too_has_plain_categories(tmp_path: Path) -> None:
    root = trees.visa_raw(tmp_path)
    with (root / "split_csv" / "1cls.csv").open("a") as file:
        file.write("../../out,train,normal,candle/Data/Images/Normal/000.JPG,\n")
    with pytest.raises(DatasetError, match=r"line 13: the category '\.\./\.\./out' cannot be the name of a folder"):
        load(root)


def test_a_list_names_each_file_once(tmp_path: Path) -> None:
    csv = trees.visa_raw(tmp_path / "csv")
    with (csv / "split_csv" / "1cls.csv").open("a") as file:
        file.write("candle,test,normal,candle/Data/../Data/Images/Normal/000.JPG,\n")
    with pytest.raises(DatasetError, match=r"line 13 names '.*000\.JPG' \(test\), which .*line 9 names too \(train\)"):
        load(csv)
    with pytest.raises(DatasetError, match=r"item 4 names 'cashew/n/000\.png' \(test\), which .*item 0 names too"):
        load(trees.visa_meta(tmp_path / "meta", img_path="cashew/n/000.png"))
    with pytest.raises(DatasetError, match=r"item 4 names 'cashew/m/001\.png' \(test\), which .*item 3 names too"):
        load(trees.visa_meta(tmp_path / "mask", mask_path="cashew/m/001.png"))
    with pytest.raises(DatasetError, match=r"item 4 names 'cashew/a/002\.png' \(test\), which .*item 4 names too"):
        load(trees.visa_meta(tmp_path / "same", mask_path="cashew/a/002.png"))
    other = trees.visa_meta(tmp_path / "other")
    lists = json.loads((other / "meta.json").read_text())
    lists["train"]["cake"] = lists["test"]["cashew"][:1] + lists["train"]["cashew"][:1]
    (other / "meta.json").write_text(json.dumps(lists))
    with pytest.raises(DatasetError, match=r"2 images occur twice, such as .*cashew"):
        load(other)


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


def test_a_category_in_another_layout_is_named(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    trees.pictures(root / "cable" / "train" / "fine", 3)
    with pytest.warns(UserWarning, match=r"cable is passed over: it is not laid out like bottle"):
        assert categories(root) == ("bottle",)


def test_one_normal_image_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"'bottle' has too few normal images \(1\) .* calib_share=0"):
        load(trees.mvtec(tmp_path / "a", train=1))
    assert len(load(tmp_path / "a", calib_share=0).train) == 1
    trees.pictures(tmp_path / "b" / "normal", 2)
    trees.pictures(tmp_path / "b" / "defects", 2)
    with pytest.raises(DatasetError, match=r"'b' has too few normal images \(2\)"):
        load(tmp_path / "b")
    assert len(load(trees.loco(tmp_path / "c")).calib) == 2


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
