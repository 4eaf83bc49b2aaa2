"""`run`: the rows and pictures it writes, what it keeps when run again, and what it refuses before it trains."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import dataset_trees as trees
import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import kdlib as kd
from kdlib.cli import app, expand
from kdlib.data import DatasetError, ImageSet, Splits
from kdlib.files import write_text
from kdlib.trials import images, outputs, runner, table
from kdlib.trials import run as runs
from kdlib.trials.names import folder_name, printable
from kdlib.trials.trial import Trial, scoring

FIRST_COLUMNS = (
    "method,protocol,category,seed,image_auroc,image_ap,image_f1max,pixel_auroc,pixel_ap,aupro,"
    "train_seconds,train_images_per_second,score_images_per_second,latency_ms_p50,parameters,peak_memory_mb"
)
FAST = ("--size", "64", "--steps", "2", "--batch", "4", "--device", "cpu", "--precision", "fp32")
SHORT = (*FAST, "--maps", "plain")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for category in ("bottle", "cable"):
        trees.mvtec(tmp_path / "data", category, train=5)
    return tmp_path / "data"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes long: pictures and the measurement of a latency."""
    monkeypatch.setattr(outputs, "draw", lambda *arguments: None)
    monkeypatch.setattr(runner, "latency_ms", lambda *arguments: 1.0)


def run(root: Path | str, out: Path, *arguments: str) -> list[dict[str, str]]:
    """Runs STPM unless the arguments begin with other methods; returns the rows of metrics.csv."""
    names = arguments if arguments and not arguments[0].startswith("-") else ("stpm", *arguments)
    options = FAST if "--maps" in names else SHORT
    app(expand(["run", *names, "--data", str(root), "--out", str(out), *options]), standalone_mode=False)
    return read(out)


def read(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def settings(root: Path | str, **changes: Any) -> runs.Settings:
    overrides = {"steps": 2, "batch_size": 4}
    given = {"size": 64, "device": "cpu", "precision": "fp32", "maps": "plain"} | changes
    return runs.Settings(data=str(root), overrides=overrides, **given)


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*arguments: object, **options: object) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(runner, "fit", fit)


def test_one_model_per_category(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(root, tmp_path / "out", "stpm", "mean", "--seed", "0")
    header = (tmp_path / "out" / "metrics.csv").read_text().splitlines()[0]
    assert header.startswith(FIRST_COLUMNS)
    assert [(r["method"], r["seed"], r["category"]) for r in rows] == [
        (method, seed, category) for method in ("stpm", "mean") for seed in "0" for category in ("bottle", "cable")
    ]
    for row in rows:
        assert row["protocol"] == "single" and row["size"] == "64" and row["runtime"] == "cpu, fp32"
        for column in FIRST_COLUMNS.split(",")[4:10]:
            assert 0 <= float(row[column]) <= 1
        assert float(row["latency_ms_p50"]) > 0 and float(row["score_images_per_second"]) > 0
        picture = tmp_path / "out" / row["category"] / f"{row['method']}-seed{row['seed']}.png"
        with Image.open(picture) as file:
            assert file.width > 300
    assert rows[0]["steps"] == "2" and float(rows[0]["parameters"]) > 1e5 and rows[2]["parameters"] == "0"
    assert len(table.read(tmp_path / "out" / "metrics.csv")) == 4
    said = capsys.readouterr().out
    assert "mean over categories and seeds" in said and "stpm         2 rows" in said
    left = {path.name for path in (tmp_path / "out" / "models").rglob("*")}
    assert {"model.safetensors", "card.json"} <= left and "training" not in left
    assert not [path for path in (tmp_path / "out").rglob(".*") if path.is_file()]
    assert {path.suffix for path in (tmp_path / "out" / "trials").iterdir()} == {".json", ".lock"}
    assert [path.name for path in (tmp_path / "out" / "trials").glob("*.lock")] == ["table.lock"]


def test_methods_then_seeds_then_categories(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[Trial] = []
    monkeypatch.setattr(runs, "carry_out", lambda trials, *others: wanted.extend(trials))
    runs.run(settings(root), ["nearest", "mean", "nearest"], ["cable", "bottle"], [1, 0, 1], tmp_path, print)
    order = [f"{m}, {c}, seed {seed}" for m in ("nearest", "mean") for seed in (1, 0) for c in ("cable", "bottle")]
    assert [str(trial) for trial in wanted] == order


def test_one_model_for_all_categories(root: Path, tmp_path: Path, quick: None) -> None:
    rows = run(root, tmp_path, "--protocol", "multi")
    assert [(r["category"], r["protocol"], r["classes"]) for r in rows] == [
        ("bottle", "multi", "2"),
        ("cable", "multi", "2"),
    ]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["stpm-all-seed0"]
    assert rows[0]["threshold"] == rows[1]["threshold"]
    with pytest.raises(ValueError, match=r"other settings.*categories"):
        run(root, tmp_path, "--protocol", "multi", "--category", "bottle")


def test_normal_maps_are_of_a_category(tmp_path: Path, quick: None) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    for category in ("bottle", "cable"):
        trees.mvtec(root, category, train=20)
    rows = run(root, out, "mean", "--protocol", "multi", "--maps", "normal floor=0.7")
    assert [(r["category"], r["maps"]) for r in rows] == [(c, "normal floor=0.7") for c in ("bottle", "cable")]
    for category in ("bottle", "cable"):
        detector = kd.load(out / "models" / f"mean-{category}-seed0")
        assert detector.normal is not None and detector.normal.floor == 0.7
        assert detector.threshold.n == 4
    with pytest.raises(ValueError, match=r"other settings.*maps"):
        run(root, out, "mean", "--protocol", "multi")


MAPS = {
    "norm": "unknown word",
    "normal floor=2": "expected shares of",
    "normal floor=high": "could not convert",
    "normal fusion=min": "fusion is 'min'; expected one of sum, mean",
    "normal blur=2": "unknown word",
    "plain floor=0.5": "unknown word",
    "": "unknown word",
}


@pytest.mark.parametrize("maps", MAPS)
def test_other_maps_are_refused(maps: str) -> None:
    with pytest.raises(ValueError, match=f"maps are '{maps}' .*{MAPS[maps]}.*expected plain, normal"):
        scoring(maps)


def test_too_few_normal_images_for_normal_maps_are_found_before_training(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_training(monkeypatch)
    with pytest.raises(ValueError, match=r"'bottle' has 1 calibration images; normal maps need 4 .*--maps plain"):
        run(root, tmp_path, "mean", "--maps", "normal")


def test_maps_are_whitened_where_they_are_distances(root: Path, tmp_path: Path, quick: None) -> None:
    trees.mvtec(tmp_path / "more", "bottle", train=24)
    rows = run(tmp_path / "more", tmp_path, "mean", "nearest", "--maps", "auto")
    assert [(row["method"], row["maps"]) for row in rows] == [("mean", "whitened"), ("nearest", "normal")]


@pytest.mark.parametrize("method", ["rd/mvtec", "dhkd/mvtec", "aand/vit"])
def test_maps_of_a_papers_preset_are_plain(method: str) -> None:
    assert runs.Settings(data="workshop", overrides={}).recipe(method).maps == ("plain",)


@pytest.mark.parametrize(("method", "options"), [("nearest", ()), ("dhkd", ("--option", "score=likelihood"))])
def test_maps_that_cannot_be_whitened_are_refused_before_training(
    method: str, options: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.mvtec(tmp_path / "more", "bottle", train=24)
    forbid_training(monkeypatch)
    with pytest.raises(ValueError, match=f"maps of '{method}' .* are no distances .*--maps normal"):
        run(tmp_path / "more", tmp_path, method, "--maps", "whitened", *options)


def test_rows_that_are_there_stay(root: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(root, tmp_path, "mean", "--category", "cable")
    both = run(root, tmp_path, "mean", "--category", "cable", "bottle")
    assert both[0] == first[0] and [r["category"] for r in both] == ["cable", "bottle"]
    forbid_training(monkeypatch)
    assert run(root, tmp_path, "mean") == both
    assert run(f"{root}/", tmp_path, "mean") == both
    with pytest.raises(AssertionError, match="trained"):
        run(root, tmp_path, "mean", "--seed", "1")


def test_killed_between_training_and_row(
    root: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as kill, pytest.raises(KeyboardInterrupt):
        kill.setattr(runner, "evaluate", killed)
        runs.run(settings(root), ["stpm"], ["bottle"], [0], tmp_path, print)
    (state,) = tmp_path.rglob("phase_0.safetensors")
    steps: list[Any] = []
    monkeypatch.setattr("kdlib.training.loop._Trainer._record", lambda *arguments: steps.append(arguments))
    rows = runs.run(settings(root), ["stpm"], ["bottle"], [0], tmp_path, print)
    assert not steps and not state.exists() and not list(tmp_path.rglob("*.work"))
    assert len(rows) == 1 and rows["steps"].tolist() == ["2"] and float(rows["train_seconds"].iloc[0]) > 0


def test_two_runs_into_one_folder_lose_no_row(
    root: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second starts while the first trains, does what the first is not at work on, and leaves it the rest."""
    lines: list[str] = []
    real = runner.fit

    def fit(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(runner, "fit", real)
        runs.run(settings(root), ["mean"], ["bottle"], [0, 1], tmp_path / "out", lines.append)
        return real(*arguments, **options)

    monkeypatch.setattr(runner, "fit", fit)
    rows = runs.run(settings(root), ["mean"], ["bottle"], [0], tmp_path / "out", print)
    assert rows["seed"].tolist() == ["1", "0"] and [r["seed"] for r in read(tmp_path / "out")] == ["1", "0"]
    assert lines[0] == "skipped mean, bottle, seed 0: another process is at work on it" and "seed 1" in lines[1]


def test_a_run_with_other_settings_is_refused_while_the_first_trains(
    root: Path, tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(*arguments: Any, **options: Any) -> Any:
        with pytest.raises(ValueError, match="other settings"):
            runs.run(settings(root, layout="mvtec"), ["stpm"], ["bottle"], [0], tmp_path / "out", print)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "fit", fit)
    with pytest.raises(KeyboardInterrupt):
        runs.run(settings(root), ["stpm"], ["bottle"], [0], tmp_path / "out", print)


@pytest.mark.parametrize(
    ("changed", "with_file"),
    [("train/good/001.png", True), ("test/broken/001.png", False), ("ground_truth/crack/000_mask.png", True)],
)
def test_changed_images_are_measured_again(
    changed: str, with_file: bool, root: Path, tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether the trial's own file is there or, as in a copied table, only its row."""
    before = run(root, tmp_path / "out", "mean")
    if not with_file:
        shutil.rmtree(tmp_path / "out" / "trials")
        assert run(root, tmp_path / "out", "mean") == before
    path = root / "cable" / changed
    with Image.open(path) as file:
        file.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(path)
    capsys.readouterr()
    after = run(root, tmp_path / "out", "mean")
    assert "again mean, cable, seed 0: its options, images or teacher have changed" in capsys.readouterr().out
    assert [r["category"] for r in after] == ["bottle", "cable"] and after[0] == before[0]
    assert after[1]["data"] != before[1]["data"] and after[1]["train_seconds"] != before[1]["train_seconds"]


def test_the_white_level_of_16_bit_files_is_a_setting(tmp_path: Path, quick: None) -> None:
    for i in range(6):
        path = tmp_path / "data" / "part" / "train" / "good" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64), 100 * i, dtype=np.uint16)).save(path)
    (row,) = run(tmp_path / "data", tmp_path / "out", "mean", "--white", "1023")
    assert float(row["threshold"]) >= 0
    (folder,) = (tmp_path / "out" / "models").iterdir()
    assert kd.load(folder).white == 1023
    with pytest.raises(ValueError, match=r"other settings: \{'white': 1023\}"):
        run(tmp_path / "data", tmp_path / "out", "mean", "--white", "4095")


def test_other_settings_need_another_folder(root: Path, tmp_path: Path, quick: None) -> None:
    run(root, tmp_path, "mean", "--category", "cable")
    with pytest.raises(ValueError, match=r"other settings: .*'per_position'.*Choose another --out"):
        run(root, tmp_path, "rd", "--option", "loss=per_position")
    (tmp_path / "metrics.csv").write_text("method,category\n")
    with pytest.raises(ValueError, match="other columns"):
        run(root, tmp_path)


def test_damaged_settings_are_refused_by_name(root: Path, tmp_path: Path, quick: None) -> None:
    run(root, tmp_path, "mean", "--category", "cable")
    for text in ("", "null", "[1]", "{", '{"data": '):
        (tmp_path / "settings.json").write_text(text)
        with pytest.raises(ValueError, match=r"settings\.json' .*choose another --out"):
            run(root, tmp_path, "mean", "--category", "cable")


BROKEN = {
    "not JSON": lambda content: None,
    "no mapping": lambda content: [],
    "no key": lambda content: {k: v for k, v in content.items() if k != "key"},
    "no rows": lambda content: content | {"rows": []},
    "rows that are none": lambda content: content | {"rows": [None]},
    "a time that is none": lambda content: content | {"finished": 3},
    "a row without its category": lambda content: content | {"rows": [content["rows"][0] | {"category": None}]},
    "a metric that is no number": lambda content: content | {"rows": [content["rows"][0] | {"aupro": "high"}]},
}


def test_damaged_files_of_trials_are_refused_by_name(root: Path, tmp_path: Path, quick: None) -> None:
    run(root, tmp_path, "mean", "--category", "cable")
    (path,) = (tmp_path / "trials").glob("*.json")
    whole = json.loads(path.read_text())
    for broken in BROKEN.values():
        write_text(path, json.dumps(broken(whole)) if broken(whole) is not None else "{")
        with pytest.raises(ValueError, match=rf"{path.name}' is damaged .*delete it"):
            run(root, tmp_path, "mean", "--category", "cable")


def test_normal_images_only(tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.pictures(tmp_path / "data" / "part" / "train" / "good", 6)
    (row,) = run(tmp_path / "data", tmp_path / "out", "mean")
    for column in (*FIRST_COLUMNS.split(",")[4:10], "score_images_per_second", "false_alarms", "recall"):
        assert math.isnan(float(row[column])), column
    assert float(row["train_seconds"]) > 0 and float(row["threshold"]) > 0
    forbid_training(monkeypatch)
    assert run(tmp_path / "data", tmp_path / "out", "mean") == [row]


def test_labels_without_masks(tmp_path: Path) -> None:
    trees.mvtec(tmp_path / "data", truth=False)
    (row,) = run(tmp_path / "data", tmp_path / "out", "mean")
    assert 0 <= float(row["image_auroc"]) <= 1
    assert all(math.isnan(float(row[column])) for column in ("pixel_auroc", "pixel_ap", "aupro"))
    assert (tmp_path / "out" / "bottle" / "mean-seed0.png").is_file()


def test_empty_masks_of_defects_are_warned_of_and_the_run_goes_on(root: Path, tmp_path: Path, quick: None) -> None:
    for path in (root / "bottle" / "ground_truth").rglob("*.png"):
        with Image.open(path) as file:
            Image.new("L", file.size).save(path)
    with pytest.warns(UserWarning, match="masks"):
        bottle, cable = run(root, tmp_path / "out", "mean")
    assert math.isnan(float(bottle["pixel_auroc"])) and 0 <= float(bottle["image_auroc"]) <= 1
    assert 0 <= float(cable["pixel_auroc"]) <= 1


def refused_before_training(
    monkeypatch: pytest.MonkeyPatch, words: str, root: Path, out: Path, *arguments: str
) -> None:
    forbid_training(monkeypatch)
    with pytest.raises(ValueError, match=words):
        run(root, out, *arguments)
    assert not (out / "metrics.csv").exists() and not (out / "settings.json").exists()


LATE = {
    "another method's option": (["stpm", "rd", "--option", "half=true"], r"'rd' has no setting \['half'\]"),
    "text for a number": (["mean", "stpm", "--option", "lr=fast"], "'mean' has no 'lr'"),
    "fraction": (["--option", "top_k=2.5"], "top_k is 2.5; expected a whole number"),
    "number for a list": (["--option", "strides=4"], "strides is 4; expected a list"),
    "switch": (["snl", "--option", "balanced=yes"], "balanced is 'yes'; expected true or false"),
    "top_k beyond the map": (["--option", "top_k=4097"], "top_k is 4097; expected 1 to"),
}


@pytest.mark.parametrize("which", LATE)
def test_what_cannot_work_is_found_before_training(
    which: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, words = LATE[which]
    refused_before_training(monkeypatch, words, root, tmp_path / "out", *arguments)


def test_a_size_that_one_of_two_methods_cannot_take_is_found_before_training(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_training(monkeypatch)
    with pytest.raises(ValueError, match="multiples of 32"):
        runs.run(dataclasses.replace(settings(root), size=50), ["stpm", "rd"], None, [0], tmp_path / "out", print)


def test_one_normal_image_is_found_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.mvtec(tmp_path / "data", "bottle", train=5)
    trees.mvtec(tmp_path / "data", "cable", train=1)
    refused_before_training(monkeypatch, "cable.*too few normal images", tmp_path / "data", tmp_path / "out")


def test_damaged_files_are_found_before_training(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = root / "cable" / "test" / "broken" / "002.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refused_before_training(monkeypatch, "002.png", root, tmp_path / "out")
    path.write_bytes(whole)
    trees.mask(root / "cable" / "ground_truth" / "crack" / "000_mask.png", size=(5, 5))
    refused_before_training(monkeypatch, r"000_mask\.png.* 5 x 5", root, tmp_path / "out")


def renamed(splits: Splits, names: dict[str, str], defect: str) -> Splits:
    """The same images under other names of categories and defects, as a list file may give them."""

    def part(images: ImageSet) -> ImageSet:
        samples = []
        for sample in images.samples:
            kind = defect if sample.label else sample.defect
            samples.append(dataclasses.replace(sample, category=names[sample.category], defect=kind))
        return ImageSet(samples, categories=[names[name] for name in images.categories], size=images.size)

    categories = tuple(names[name] for name in splits.categories)
    return Splits(part(splits.train), part(splits.calib), part(splits.test), categories, splits.licence)


@pytest.mark.parametrize(("name", "other"), [("../../X", "caf\udce9"), ("$^$", "trials")])
def test_any_name_of_a_category_stays_in_the_folder(
    name: str,
    other: str,
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    splits = renamed(images.load(str(root), None, size=64), {"bottle": name, "cable": other}, "$^$ \udce9")
    monkeypatch.setattr(images, "load", lambda *arguments, **options: splits)
    out = tmp_path / "a" / "b" / "out"
    rows = run(root, out, "mean")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["out"]
    assert {path.name for path in tmp_path.iterdir()} == {"a", "data"}
    assert len(list(out.glob("*/mean-seed0.png"))) == 2 and not list(out.glob("trials/*.png"))
    assert [row["category"] for row in rows] == [printable(name), printable(other)]
    forbid_training(monkeypatch)
    assert run(root, out, "mean") == rows
    capsys.readouterr().out.encode("utf-8")


NAMES = [
    "../../X",
    "$^$",
    "caf\udce9",
    "/tmp/X",
    "C:\\X",
    "a" * 300,
    "\u90e8\u54c1" * 60,
    "..",
    ".",
    "",
    " a",
    "a.",
    "nul",
    "a\n",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_becomes_one_folder_of_its_own(name: str, tmp_path: Path) -> None:
    folder = folder_name(name)
    (tmp_path / "x" / folder).mkdir(parents=True)
    assert [path.name for path in (tmp_path / "x").iterdir()] == [folder] and len(folder.encode()) < 100
    assert folder != name and folder not in {folder_name(other) for other in NAMES if other != name}
    assert folder == folder_name(name) and printable(folder) == folder


@pytest.mark.parametrize("name", ["bottle", "metal_nut", "01", "Retina RESC", "v1.2", "\u90e8\u54c1"])
def test_a_plain_name_stays(name: str) -> None:
    assert folder_name(name) == name
    assert folder_name(name, reserved=(name,)) != name


def test_a_failed_first_try_does_not_occupy_the_folder(root: Path, tmp_path: Path, quick: None) -> None:
    with pytest.raises(ValueError, match="unknown network"):
        run(root, tmp_path, "--backbone", "resnet17")
    assert len(run(root, tmp_path, "mean", "--category", "bottle")) == 1


def test_train_knows_whose_detectors_are_there(
    root: Path, tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out, options = tmp_path / "out", ("mean", "--seed", "0", "1")
    models = out / "models"
    run(root, out, *options)

    def trained(*arguments: str) -> list[str]:
        capsys.readouterr()
        app(expand(["train", *arguments, "--data", str(root), "--out", str(out), *SHORT]), standalone_mode=False)
        return capsys.readouterr().out.split()[::2]

    assert trained(*options) == ["there"] * 4
    path = root / "cable" / "train" / "good" / "001.png"
    before = path.read_bytes()
    trees.picture(path, seed=99)
    assert trained("mean") == ["there", "saved"]
    path.write_bytes(before)  # the run's own images again, beside a detector of others
    assert trained("mean") == ["there", "saved"] and trained("mean") == ["there", "there"]

    bottle = models / "mean-bottle-seed0"
    for other, said in (
        ("cable-seed0", r"it has \{.*'categories': \['cable'\].*expected \{.*'categories': \['bottle'\]"),
        ("bottle-seed1", r"it has \{'seed': 1\}, expected \{'seed': 0\}; delete that folder to train anew, or choose"),
    ):
        shutil.copytree(models / f"mean-{other}", bottle, dirs_exist_ok=True)
        with pytest.raises(ValueError, match=f"mean-bottle-seed0' holds the detector of another training: {said}"):
            trained("mean")
    kd.save(kd.load(bottle), bottle)
    with pytest.raises(ValueError, match=r"it has no note of its training, expected \{'method': 'mean'"):
        trained("mean")
    (bottle / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        trained("mean")
    shutil.rmtree(bottle)
    assert trained("mean") == ["saved", "there"] and trained(*options) == ["there"] * 4


@pytest.mark.parametrize("maps", ["plain", "normal"])
def test_images_of_ones_own_are_tested_in_a_folder_of_another_name(maps: str, tmp_path: Path, quick: None) -> None:
    parts, later, out = tmp_path / "my_parts", tmp_path / "later" / "new parts", tmp_path / "out"
    for folder, count in ((parts, 30), (later, 6)):
        trees.pictures(folder, count)
        trees.pictures(folder / "defects" / "dent", 2)
    trees.mvtec(tmp_path / "others", "bottle", train=5)

    def call(stage: str, data: Path, *more: str) -> None:
        options = ("--size", "64", "--maps", maps, "--device", "cpu", "--precision", "fp32", "--seed", "1")
        app(expand([stage, "mean", "--data", str(data), "--out", str(out), *options, *more]), standalone_mode=False)

    call("train", parts)
    for data in (parts, later):
        call("test", data, "--results", str(tmp_path / data.name))
        assert [row["category"] for row in read(tmp_path / data.name)] == [data.name]
    with pytest.raises(
        ValueError, match=r"no detector in '.*mean-bottle-seed1'; train .* as one that is there: mean-my"
    ):
        call("test", tmp_path / "others")
    with pytest.raises(ValueError, match=r"there is no detector in .*mean-bottle-seed1'"):  # a name that says something
        call("test", tmp_path / "others" / "bottle")


def test_an_unknown_data_set_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        run(tmp_path / "none", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_teacher_is_measured_again(
    root: Path, tmp_path: Path, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights.safetensors"
    network = kd.teachers.classifier("resnet18", "random").state_dict()
    save_file(network, weights)
    options = ("mean", "--category", "cable", "--backbone", "resnet18", "--weights", str(weights))
    run(root, tmp_path / "out", *options)
    save_file({name: 2 * tensor for name, tensor in network.items()}, weights)
    capsys.readouterr()
    run(root, tmp_path / "out", *options)
    assert "again mean, cable, seed 0" in capsys.readouterr().out
