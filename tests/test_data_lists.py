"""Damaged lists, 1cls.csv and meta.json: what is wrong is said, and no path leads out."""

from __future__ import annotations

import json
from pathlib import Path

import dataset_trees as trees
import pytest

from kdlib.data import DatasetError, categories, load


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
