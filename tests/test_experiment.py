"""The command line: rows and pictures it writes, what it keeps when run again, and how it says what is wrong."""

from __future__ import annotations

import csv
import json
import math
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import dataset_trees as trees
import pytest
from PIL import Image

from kdlib import experiment
from kdlib.cli import app, expand

FIRST_COLUMNS = (
    "method,protocol,category,seed,image_auroc,image_ap,image_f1max,pixel_auroc,pixel_ap,aupro,"
    "train_seconds,train_images_per_second,score_images_per_second,latency_ms_p50,parameters,peak_memory_mb"
)
SHORT = ("--size", "64", "--steps", "2", "--batch", "4", "--device", "cpu", "--precision", "fp32")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for category in ("bottle", "cable"):
        trees.mvtec(tmp_path / "data", category, train=5)
    return tmp_path / "data"


def run(root: Path, out: Path, *arguments: str) -> list[dict[str, str]]:
    """Runs STPM unless the arguments begin with other methods; returns the rows of metrics.csv."""
    names = arguments if arguments and not arguments[0].startswith("-") else ("stpm", *arguments)
    app(expand(["run", *names, "--data", str(root), "--out", str(out), *SHORT]), standalone_mode=False)
    return read(out)


def read(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What ``python -m kdlib`` says when it fails."""
    monkeypatch.setattr(sys, "argv", ["kdlib", *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("kdlib", run_name="__main__")
    assert stop.value.code not in (0, None)
    said = capsys.readouterr().err + (stop.value.code if isinstance(stop.value.code, str) else "")
    assert "Traceback" not in said
    return said


def test_one_model_per_category(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(root, tmp_path / "out", "stpm", "mean", "--seed", "0", "1")
    header = (tmp_path / "out" / "metrics.csv").read_text().splitlines()[0]
    assert header.startswith(FIRST_COLUMNS)
    assert [(r["method"], r["seed"], r["category"]) for r in rows] == [
        (method, seed, category) for method in ("stpm", "mean") for seed in "01" for category in ("bottle", "cable")
    ]
    for row in rows:
        assert row["protocol"] == "single" and row["size"] == "64" and row["runtime"] == "cpu, fp32"
        for column in FIRST_COLUMNS.split(",")[4:10]:
            assert 0 <= float(row[column]) <= 1
        assert float(row["latency_ms_p50"]) > 0 and float(row["score_images_per_second"]) > 0
        picture = tmp_path / "out" / row["category"] / f"{row['method']}-seed{row['seed']}.png"
        with Image.open(picture) as file:
            assert file.width > 300
    assert rows[0]["steps"] == "2" and float(rows[0]["parameters"]) > 1e5 and rows[4]["parameters"] == "0"
    said = capsys.readouterr().out
    assert "mean over categories and seeds" in said and "stpm         4 rows" in said
    left = {path.name for path in (tmp_path / "out" / "models").rglob("*")}
    assert {"model.safetensors", "card.json"} <= left and "state" not in left
    assert not [path for path in (tmp_path / "out").rglob(".*") if path.is_file()]


def test_one_model_for_all_categories(root: Path, tmp_path: Path) -> None:
    rows = run(root, tmp_path, "--protocol", "multi")
    assert [(r["category"], r["protocol"]) for r in rows] == [("bottle", "multi"), ("cable", "multi")]
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["stpm-all-seed0"]
    assert rows[0]["threshold"] == rows[1]["threshold"]
    with pytest.raises(ValueError, match=r"other settings.*categories"):
        run(root, tmp_path, "--protocol", "multi", "--category", "bottle")


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(experiment, "fit", fit)


def test_rows_that_are_there_stay(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(root, tmp_path, "--category", "cable")
    both = run(root, tmp_path, "--category", "cable", "bottle")
    assert both[0] == first[0] and [r["category"] for r in both] == ["cable", "bottle"]
    forbid_training(monkeypatch)
    assert run(root, tmp_path) == both
    with pytest.raises(AssertionError, match="trained again"):
        run(root, tmp_path, "--seed", "1")


def test_killed_between_training_and_row(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "_row", killed)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(settings(root), ["stpm"], ["bottle"], [0], tmp_path, lambda row: None)
    monkeypatch.undo()
    state = tmp_path / "models" / "stpm-bottle-seed0" / "state"
    trained = (state / "phase_0.safetensors").read_bytes()
    steps: list[Any] = []
    monkeypatch.setattr("kdlib.training.loop._Trainer._record", lambda *arguments: steps.append(arguments))
    rows = experiment.run(settings(root), ["stpm"], ["bottle"], [0], tmp_path, lambda row: None)
    assert trained and not steps and not state.exists()
    assert len(rows) == 1 and rows[0]["steps"] == 2 and rows[0]["train_seconds"] > 0


def settings(root: Path) -> experiment.Settings:
    overrides = {"steps": 2, "batch_size": 4}
    return experiment.Settings(data=str(root), size=64, overrides=overrides, device="cpu", precision="fp32")


def test_other_settings_need_another_folder(root: Path, tmp_path: Path) -> None:
    run(root, tmp_path, "--category", "cable")
    with pytest.raises(ValueError, match=r"other settings: .*'per_position'.*Choose another --out"):
        run(root, tmp_path, "rd", "--option", "loss=per_position")
    (tmp_path / "metrics.csv").write_text("method,category\n")
    with pytest.raises(ValueError, match="other columns"):
        run(root, tmp_path)


def test_normal_images_only(tmp_path: Path) -> None:
    trees.pictures(tmp_path / "data" / "part" / "train" / "good", 6)
    (row,) = run(tmp_path / "data", tmp_path / "out")
    for column in (*FIRST_COLUMNS.split(",")[4:10], "score_images_per_second", "false_alarms", "recall"):
        assert math.isnan(float(row[column])), column
    assert float(row["train_seconds"]) > 0 and float(row["threshold"]) > 0
    forbidden = pytest.MonkeyPatch()
    forbid_training(forbidden)
    assert run(tmp_path / "data", tmp_path / "out") == [row]
    forbidden.undo()


def test_labels_without_masks(tmp_path: Path) -> None:
    trees.mvtec(tmp_path / "data", truth=False)
    (row,) = run(tmp_path / "data", tmp_path / "out")
    assert 0 <= float(row["image_auroc"]) <= 1
    assert all(math.isnan(float(row[column])) for column in ("pixel_auroc", "pixel_ap", "aupro"))
    assert (tmp_path / "out" / "bottle" / "stpm-seed0.png").is_file()


def test_means_leave_out_what_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    from kdlib.cli import _print_means

    row = {"method": "m", "image_auroc": "0.5", "pixel_auroc": "nan", "aupro": "nan", "train_seconds": "1"}
    _print_means([row, row | {"image_auroc": 0.7, "aupro": 0.25}])
    assert "image_auroc 0.600  pixel_auroc nan  aupro 0.250" in capsys.readouterr().out


def test_several_values_after_one_option() -> None:
    given = ["run", "a", "b", "--seed", "0", "1", "--out", "x", "--category", "c", "--seed", "2", "3"]
    assert expand(given) == [
        *("run", "a", "b", "--seed", "0", "--seed", "1", "--out", "x"),
        *("--category", "c", "--seed", "2", "--seed", "3"),
    ]


def test_bench(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["bench", "dnpkd", "--against", "stpm", "--backbone", "resnet18", "--size", "64", "--batch", "2", "--json"]
    app(given, standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["backbone"] == "resnet18.tv_in1k" and (found["size"], found["batch"]) == (64, 2)
    rates = ("train", "train_plain", "train_ratio", "teacher", "score", "score_plain", "score_ratio", "step_ratio")
    assert all(found[name] > 0 for name in (*rates, "latency_ms_p50", "peak_memory_mb"))


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    app(["doctor"], standalone_mode=False)
    said = capsys.readouterr().out
    for word in ("python", "torch", "runs on", "cpu", "tf_efficientnet_lite0", "(package)", "data folder"):
        assert word in said


MISTAKES = {
    "method": (["run", "stmp"], "unknown method 'stmp'"),
    "preset": (["run", "stpm/large"], "unknown preset 'stpm/large'"),
    "category": (["run", "stpm", "--category", "cabel"], "'cabel'. Did you mean 'cable'?"),
    "protocol": (["run", "stpm", "--protocol", "both"], "expected 'single' or 'multi'"),
    "option": (["run", "stpm", "--option", "speed=3"], "no setting ['speed']"),
    "no value": (["run", "stpm", "--option", "lr"], "'lr' is not NAME=VALUE"),
    "backbone": (["run", "stpm", "--backbone", "resnet17"], "unknown network 'resnet17'"),
    "weights": (["run", "stpm", "--weights", "w.pth"], "weights file 'w.pth' not found"),
    "device": (["run", "stpm", "--device", "gpu"], "unknown device 'gpu'"),
    "precision": (["run", "stpm", "--precision", "int8"], "unknown precision 'int8'"),
    "size": (["run", "rd", "--size", "50"], "multiples of 32"),
    "layout": (["run", "stpm", "--layout", "visa"], "visa"),
}


@pytest.mark.parametrize("which", MISTAKES)
def test_mistakes_end_with_one_clear_line(
    which: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given, words = MISTAKES[which]
    said = failure(monkeypatch, capsys, *given, "--data", str(root), "--out", str(tmp_path / "out"), "--steps", "2")
    assert said.startswith("kdlib: ") and words in said


def test_mistakes_of_bench_and_of_paths(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "has no training to measure" in failure(monkeypatch, capsys, "bench", "nearest")
    assert "has no training to measure" in failure(monkeypatch, capsys, "bench", "stpm", "--against", "mean")
    assert "expected positive numbers" in failure(monkeypatch, capsys, "bench", "stpm", "--batch", "0")
    nowhere = failure(monkeypatch, capsys, "run", "stpm", "--data", str(tmp_path / "none"), "--out", str(tmp_path))
    assert "does not exist" in nowhere
    (tmp_path / "file").write_text("")
    occupied = failure(monkeypatch, capsys, "run", "stpm", "--data", str(root), "--out", str(tmp_path / "file"))
    assert occupied.startswith("kdlib: ") and "file" in occupied
    assert "--size" in failure(monkeypatch, capsys, "bench", "stpm", "--size", "big")


def test_a_failed_first_try_does_not_occupy_the_folder(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown network"):
        run(root, tmp_path, "--backbone", "resnet17")
    assert len(run(root, tmp_path, "--category", "bottle")) == 1


def test_a_real_process_is_silent_where_stderr_is_no_terminal(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kdlib", "run", "stpm", "--data", str(root), "--out", str(tmp_path), *SHORT]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--category", "bottle"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "metrics.csv" in done.stdout and len(read(tmp_path)) == 1
