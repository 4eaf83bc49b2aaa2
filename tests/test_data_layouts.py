"""Every layout is recognised, and its files end in the right split with the right label and mask."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import dataset_trees as trees
import pytest

from kdlib.data import ImageSet, Splits, categories, load

Builder = Callable[[Path], Path]

# layout: builder, categories, images in train, calib, test and how many of these are anomalous, for the first category
LAYOUT_CASES: dict[str, tuple[str, Builder, tuple[str, ...], tuple[int, int, int, int], bool]] = {
    "mvtec": ("mvtec", trees.mvtec, ("bottle",), (8, 2, 6, 4), True),
    "mvtec without masks": ("mvtec", lambda r: trees.mvtec(r, truth=False), ("bottle",), (8, 2, 6, 4), False),
    "mvtec loco": ("mvtec_loco", trees.loco, ("pushpins",), (5, 2, 6, 4), True),
    "mvtec ad2": ("mvtec_ad2", trees.ad2, ("vial",), (5, 2, 5, 3), True),
    "mvtec3d": ("mvtec3d", trees.mvtec3d, ("bagel",), (5, 2, 5, 3), True),
    "visa raw": ("visa", trees.visa_raw, ("candle",), (5, 1, 5, 3), True),
    "visa reorganised": ("visa", trees.visa_reorganised, ("pcb1",), (5, 1, 5, 3), True),
    "visa meta.json": ("visa", trees.visa_meta, ("cashew",), (5, 1, 5, 3), True),
    "btad": ("btad", trees.btad, ("01", "02", "03"), (4, 1, 5, 3), True),
}
for set_name, masks in {"Brain": "anomaly_mask", "Liver": "label", "RSNA": None}.items():
    build = (lambda name, folder: lambda root: trees.bmad(root, name, folder))(set_name, masks)
    LAYOUT_CASES[f"bmad {set_name}"] = ("bmad", build, (set_name,), (5, 2, 5, 3), masks is not None)


def counts(splits: Splits) -> tuple[int, int, int, int]:
    return len(splits.train), len(splits.calib), len(splits.test), int(splits.test.labels.sum())


def names(images: ImageSet, root: Path) -> list[str]:
    return [sample.path.relative_to(root).as_posix() for sample in images.samples]


@pytest.mark.parametrize("case", LAYOUT_CASES)
@pytest.mark.parametrize("given", ["auto", "named", "category folder"])
def test_layout(tmp_path: Path, case: str, given: str) -> None:
    name, build, known, expected, has_masks = LAYOUT_CASES[case]
    root = build(tmp_path)
    if given == "category folder":
        inner = {"btad": "BTech_Dataset_transformed", "visa reorganised": "1cls"}.get(case, "")
        root, known = root / inner / known[0], known[:1]
    assert categories(root) == known
    splits = load(root, known[0], layout=name if given == "named" else "auto", size=8)
    assert counts(splits) == expected
    assert not splits.train.labels.any() and not splits.calib.labels.any()
    assert splits.test.has_masks == has_masks
    for item, sample in zip(splits.test, splits.test.samples, strict=True):
        assert item["label"] == sample.label == int(sample.defect != "normal")
        wanted = 32 if sample.label and has_masks else 0
        assert item["mask"].sum() == wanted, sample
    paths = [sample.path for part in (splits.train, splits.calib, splits.test) for sample in part.samples]
    assert len(set(paths)) == len(paths)


def test_layouts_with_a_validation_set_use_it_for_calibration(tmp_path: Path) -> None:
    assert {s.path.parts[-4] for s in load(trees.mvtec3d(tmp_path / "a")).calib.samples} == {"validation"}
    for build in (trees.loco, trees.ad2):
        root = build(tmp_path / build.__name__)
        assert {s.path.parts[-3] for s in load(root).calib.samples} == {"validation"}
        assert not any("private" in s.path.as_posix() for s in load(root).test.samples)
    bmad = load(trees.bmad(tmp_path / "b", "Brain", "label"))
    assert {s.path.parts[-4] for s in bmad.calib.samples} == {"valid"}
    assert not any("valid" in s.path.parts for s in bmad.test.samples)


def test_defect_names_come_from_the_folders(tmp_path: Path) -> None:
    assert {s.defect for s in load(trees.mvtec(tmp_path / "a")).test.samples} == {"normal", "broken", "crack"}
    meta = trees.visa_meta(tmp_path / "b", specie_name="dent")
    assert [s.defect for s in load(meta).test.samples if s.label] == ["anomaly", "anomaly", "dent"]


@pytest.mark.parametrize(
    ("build", "licence"),
    [
        (trees.mvtec, "CC BY-NC-SA 4.0, non-commercial (MVTec AD)"),
        (lambda root: trees.mvtec(root, "my_product"), ""),
        (trees.mvtec3d, "CC BY-NC-SA 4.0, non-commercial (MVTec 3D-AD)"),
        (trees.loco, "CC BY-NC-SA 4.0, non-commercial (MVTec LOCO AD)"),
        (trees.ad2, "CC BY-NC-SA 4.0, non-commercial (MVTec AD 2)"),
        (lambda root: trees.ad2(root, "my_product"), ""),
        (trees.visa_raw, "CC BY 4.0 (VisA)"),
        (trees.visa_reorganised, "CC BY 4.0 (VisA)"),
        (lambda root: trees.visa_meta(root, "my_product"), ""),
        (trees.btad, "CC BY-NC-SA 4.0, non-commercial (BTAD)"),
    ],
)
def test_licence_is_told_only_where_the_set_is_known(tmp_path: Path, build: Builder, licence: str) -> None:
    assert load(build(tmp_path)).licence == licence


def test_order_of_a_list_does_not_matter(tmp_path: Path) -> None:
    root = trees.visa_raw(tmp_path)
    table = root / "split_csv" / "1cls.csv"
    before = load(root)
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([header, *sorted(lines)]) + "\n")
    after = load(root)
    assert names(after.train, root) == names(before.train, root) == sorted(names(before.train, root))
    assert names(after.calib, root) == names(before.calib, root)
    assert names(after.test, root) == names(before.test, root)


def test_mvtec_tree_with_a_meta_json_stays_mvtec(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    (root / "meta.json").write_text(json.dumps({"train": {"bottle": []}, "test": {"bottle": []}}))
    assert counts(load(root)) == (8, 2, 6, 4)


def test_meta_json_of_another_kind_is_no_data_set(tmp_path: Path) -> None:
    trees.pictures(tmp_path, 5)
    for text in ("[1]", '{"author": "me"}'):
        (tmp_path / "meta.json").write_text(text)
        assert counts(load(tmp_path)) == (4, 1, 0, 0)
    (tmp_path / "meta.json").write_text("{")
    with pytest.warns(UserWarning, match=r"meta\.json is damaged .* and is passed over"):
        assert counts(load(tmp_path)) == (4, 1, 0, 0)


def test_meta_json_written_on_windows(tmp_path: Path) -> None:
    root = trees.visa_meta(tmp_path)
    (root / "meta.json").write_text((root / "meta.json").read_text().replace("/", "\\\\"))
    assert counts(load(root)) == (5, 1, 5, 3)


def test_hidden_files_and_papers_are_passed_over(tmp_path: Path) -> None:
    root = trees.mvtec(tmp_path)
    for folder in (root, root / "bottle", root / "bottle" / "train", root / "bottle" / "test" / "broken"):
        for name in ("._000.png", ".DS_Store", "Thumbs.db", "notes.md"):
            (folder / name).write_bytes(b"")
    for name in (".ipynb_checkpoints", "__MACOSX"):
        trees.pictures(root / "bottle" / "test" / name, 1)
    assert counts(load(root)) == (8, 2, 6, 4)


def test_suffixes_in_any_case(tmp_path: Path) -> None:
    suffixes = [".png", ".PNG", ".jpg", ".JPEG", ".bmp", ".Tif", ".tiff", ".webp", ".jfif", ".JPE", ".gif"]
    suffixes += [".ppm", ".pgm", ".pnm", ".pbm", ".jp2", ".j2k"]
    for number, suffix in enumerate(suffixes):
        trees.picture(tmp_path / f"{number}{suffix}")
    splits = load(tmp_path, size=8, calib_share=0)
    assert len(list(splits.train)) == len(suffixes) and len(splits.calib) == 0


@pytest.mark.parametrize("where", ["", "normal", "good", "Train", "ok/a/b", "Healthy"])
def test_own_folder_with_normal_images_only(tmp_path: Path, where: str) -> None:
    trees.pictures(tmp_path / "bolts" / where, 10, ".jpg")
    splits = load(tmp_path / "bolts")
    assert splits.categories == ("bolts",) and counts(splits) == (8, 2, 0, 0) and not splits.test.has_masks


@pytest.mark.parametrize("folder", ["defects", "bad", "NG"])
def test_own_folder_holds_out_normal_images_for_the_test(tmp_path: Path, folder: str) -> None:
    trees.pictures(tmp_path, 10)
    trees.pictures(tmp_path / folder, 2)
    trees.pictures(tmp_path / folder / "scratch" / "deep", 1)
    splits = load(tmp_path)
    assert counts(splits) == (6, 2, 5, 3) and not splits.test.has_masks
    assert sorted(s.defect for s in splits.test.samples) == sorted([folder, folder, "scratch", "normal", "normal"])


@pytest.mark.parametrize("ending", [".png", "_mask.png"])
@pytest.mark.parametrize("mask_folder", ["masks/dent", "ground_truth/dent", "Masks/Dent"])
def test_own_folder_with_test_and_masks(tmp_path: Path, mask_folder: str, ending: str) -> None:
    trees.pictures(tmp_path / "train", 10, ".JPG")
    trees.pictures(tmp_path / "test" / "good", 2)
    trees.pictures(tmp_path / "test" / "dent", 3)
    trees.masks(tmp_path / mask_folder, 3, ending)
    splits = load(tmp_path, size=8)
    assert counts(splits) == (8, 2, 5, 3) and splits.test.has_masks
    assert [int(item["mask"].sum()) for item in splits.test] == [32, 32, 32, 0, 0]


def test_own_folder_with_masks_beside_the_images(tmp_path: Path) -> None:
    trees.pictures(tmp_path, 10)
    trees.pictures(tmp_path / "defects" / "dent", 3, ".jpg")
    trees.picture(tmp_path / "defects" / "dent" / "face_mask.jpg")
    trees.masks(tmp_path / "defects" / "dent", 2)
    trees.masks(tmp_path, 2)
    test = load(tmp_path).test
    assert not test.has_masks
    anomalous = [s for s in test.samples if s.label]
    assert [s.path.name for s in anomalous] == ["000.jpg", "001.jpg", "002.jpg", "face_mask.jpg"]
    assert [s.mask_path.name if s.mask_path else None for s in anomalous] == [
        "000_mask.png",
        "001_mask.png",
        None,
        None,
    ]


def test_own_folder_with_normal_images_in_train(tmp_path: Path) -> None:
    trees.pictures(tmp_path / "train" / "OK", 10)
    trees.pictures(tmp_path / "Defects" / "dent", 3)
    trees.masks(tmp_path / "masks" / "dent", 3)
    splits = load(tmp_path)
    assert counts(splits) == (6, 2, 5, 3) and splits.test.has_masks and splits.licence == ""
