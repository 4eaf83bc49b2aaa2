"""The command line: how it is written, what it prints, and how it says what is wrong."""

from __future__ import annotations

import csv
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import dataset_trees as trees
import pandas as pd
import pytest
import torch
from PIL import Image

import kdlib as kd
from kdlib import cli, methods
from kdlib.cli import app, expand
from kdlib.runtime import call_seconds
from kdlib.trials import runner, scores, speed

SHORT = ("--size", "64", "--steps", "2", "--batch", "4", "--device", "cpu", "--precision", "fp32", "--maps", "plain")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for category in ("bottle", "cable"):
        trees.mvtec(tmp_path / "data", category, train=5)
    return tmp_path / "data"


def failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `python -m kdlib` says when it fails."""
    monkeypatch.setattr(sys, "argv", ["kdlib", *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("kdlib", run_name="__main__")
    assert stop.value.code not in (0, None)
    said = capsys.readouterr().err + (stop.value.code if isinstance(stop.value.code, str) else "")
    assert "Traceback" not in said
    return said


def test_several_values_after_one_option() -> None:
    given = ["run", "a", "b", "--seed", "0", "1", "--out", "x", "--category", "c", "--seed", "2", "3"]
    assert expand(given) == [
        *("run", "a", "b", "--seed", "0", "--seed", "1", "--out", "x"),
        *("--category", "c", "--seed", "2", "--seed", "3"),
    ]


def test_several_values_after_one_option_with_an_equals_sign() -> None:
    assert expand(["run", "a", "--seed=0", "1", "--option", "x=1", "y=2", "--steps=5"]) == [
        *("run", "a", "--seed=0", "--seed", "1", "--option", "x=1", "--option", "y=2", "--steps=5")
    ]
    assert expand(["study", "snl", "--variant", "", "+ CRAM"]) == [
        "study",
        "snl",
        "--variant",
        "",
        "--variant",
        "+ CRAM",
    ]


VALUES: dict[str, Any] = {
    "False": False,
    "false": False,
    "True": True,
    "None": None,
    "null": None,
    "3": 3,
    "1e-3": 0.001,
    "[4, 8]": (4, 8),
    "(4, 8)": (4, 8),
    '"64"': "64",
    "product": "product",
    "+ CRAM": "+ CRAM",
    "a=b": "a=b",
    "": "",
}


@pytest.mark.parametrize("text", VALUES)
def test_values_of_options_are_those_of_json_and_python(text: str) -> None:
    parsed = cli.options([f"name={text}"])["name"]
    assert parsed == VALUES[text] and type(parsed) is type(VALUES[text])


@pytest.mark.parametrize("text", ["False", "false"])
def test_a_switch_is_switched_off(text: str) -> None:
    assert methods.configure("dnpkd", **cli.options([f"fafc={text}"])).fafc is False  # type: ignore[attr-defined]


def test_commands_of_the_course_are_there() -> None:
    assert {command.name for command in app.registered_commands} >= {"study", "claims"}


def test_unknown_studies_and_variants_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown study 'nothing'"):
        app(expand(["study", "nothing"]), standalone_mode=False)
    with pytest.raises(ValueError, match=r"no variants \['no mask'\]; it has .*'no masks'"):
        app(expand(["study", "dnpkd", "--variant", "no mask"]), standalone_mode=False)
    with pytest.raises(ValueError, match="there is no folder"):
        app(expand(["claims", "--results", str(tmp_path / "none")]), standalone_mode=False)


def test_claims_writes_the_ledger_of_this_repository_or_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign, own = tmp_path / "foreign", tmp_path / "data" / "results" / "claims.csv"
    foreign.mkdir()
    own.parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    app(["claims", "--results", str(foreign)], standalone_mode=False)
    printed = capsys.readouterr().out
    assert printed.startswith("paper,claim") and not list(foreign.iterdir()) and not own.exists()
    app(["claims", "--results", str(foreign), "--out", str(tmp_path / "x.csv")], standalone_mode=False)
    app(["claims"], standalone_mode=False)
    assert (tmp_path / "x.csv").read_text() == own.read_text() == printed.rstrip("\n") + "\n"


def test_bench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def once(work: Callable[[], object], device: torch.device, **options: int) -> list[float]:
        return call_seconds(work, device, warmup=0, repeats=1)

    monkeypatch.setattr(speed, "call_seconds", once)
    monkeypatch.setattr(speed, "bench", partial(speed.bench, rounds=1))
    given = ["bench", "dnpkd", "--against", "stpm", "--backbone", "resnet18", "--size", "64", "--batch", "2", "--json"]
    app(given, standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert found["backbone"] == "resnet18.tv_in1k" and (found["size"], found["batch"]) == (64, 2)
    rates = ("train", "train_plain", "train_ratio", "teacher", "score", "score_plain", "score_ratio", "step_ratio")
    assert all(found[name] > 0 for name in (*rates, "latency_ms_p50", "peak_memory_mb"))
    app(
        ["bench", "stpm", "--option", "backbone=resnet18", "--size", "64", "--batch", "2", "--json"],
        standalone_mode=False,
    )
    assert json.loads(capsys.readouterr().out)["backbone"] == "resnet18.tv_in1k"


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    app(["doctor"], standalone_mode=False)
    said = capsys.readouterr().out
    for word in ("python", "torch", "runs on", "cpu", "tf_efficientnet_lite0", "(package)", "data folder"):
        assert word in said


MISTAKES = {
    "method": (["run", "stmp"], "unknown method 'stmp'"),
    "preset": (["run", "stpm/large"], "unknown preset 'stpm/large'"),
    "category": (["run", "stpm", "--category", "cabel"], "'cabel'. Did you mean 'cable'?"),
    "protocol": (["run", "stpm", "--protocol", "both"], "protocol is 'both'; expected one of single, multi"),
    "empty option": (["run", "stpm", "--option", "=3"], "'=3' is not NAME=VALUE"),
    "type": (["run", "stpm", "--option", "half=2"], "half is 2; expected true or false"),
    "near option": (["run", "stpm", "--option", "lrr=3"], "'stpm' has no 'lrr'; did you mean 'lr'?"),
    "option": (["run", "stpm", "--option", "speed=3"], "'stpm' has no 'speed'; expected some of"),
    "no value": (["run", "stpm", "--option", "lr"], "'lr' is not NAME=VALUE"),
    "backbone": (["run", "stpm", "--backbone", "resnet17"], "unknown network 'resnet17'"),
    "weights": (["run", "stpm", "--weights", "w.pth"], "weights file 'w.pth' not found"),
    "device": (["run", "stpm", "--device", "gpu"], "unknown device 'gpu'"),
    "precision": (["run", "stpm", "--precision", "int8"], "unknown precision 'int8'"),
    "size": (["run", "rd", "--size", "50"], "multiples of 32"),
    "layout": (["run", "stpm", "--layout", "visa"], "visa"),
    "white": (["run", "stpm", "--white", "100"], "white=100 must lie between 255 and 65535"),
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
    assert "blurr" in failure(monkeypatch, capsys, "bench", "stpm", "--option", "blur=1", "blurr=1")
    nowhere = failure(monkeypatch, capsys, "run", "stpm", "--data", str(tmp_path / "none"), "--out", str(tmp_path))
    assert "does not exist" in nowhere
    (tmp_path / "file").write_text("")
    for place in ("file", "file/deep"):
        given = ("--data", str(root), "--out", str(tmp_path / place), *SHORT)
        assert "file' is a file; expected a folder" in failure(monkeypatch, capsys, "run", "stpm", *given)
    nobody = failure(monkeypatch, capsys, "run", "stpm", "--data", "~no user/x", "--out", str(tmp_path))
    assert "'~no user/x' begins with a home folder that nobody has here" in nobody
    for size in ("big", "0", "-1"):
        assert "--size" in failure(monkeypatch, capsys, "bench", "stpm", "--size", size)


def test_a_real_process_is_silent_where_stderr_is_no_terminal(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "kdlib", "run", "mean", "--data", str(root), "--out", str(tmp_path), *SHORT]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, "--category", "bottle"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "metrics.csv" in done.stdout and len((tmp_path / "metrics.csv").read_text().splitlines()) == 2


def call(*arguments: str) -> None:
    app(expand(arguments), standalone_mode=False)


def judge(detector: kd.Detector, folder: Path, threshold: float) -> str:
    """A saved detector of this threshold."""
    decided = replace(detector.threshold, value=threshold)
    options: dict[str, Any] = {"precision": detector.precision}
    return str(kd.save(kd.Detector(detector.model, detector.size, decided, detector.scale, **options), folder))


@pytest.fixture
def judges(detector: kd.Detector, tmp_path: Path) -> tuple[str, str]:
    """Detectors that call everything normal, and everything anomalous."""
    return judge(detector, tmp_path / "mild", 1e9), judge(detector, tmp_path / "strict", -1e9)


def ending(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    """The exit code of `python -m kdlib`, or the text it ends with."""
    monkeypatch.setattr(sys, "argv", ["kdlib", *arguments])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("kdlib", run_name="__main__")
    return stop.value.code


def test_one_file_drives_training_test_and_scores(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "out", tmp_path / "my.yaml"
    changes = ("--option", "steps=2", "batch_size=4", "backbone=resnet18", "weights=random")
    call("config", "stpm", "--data", str(root), "--out", str(out), "--size", "64", "--maps", "plain", *changes)
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    plain = ("--config", str(file), "--device", "cpu", "--precision", "fp32")
    with pytest.raises(ValueError, match=r"there is no detector in .*train it first"):
        call("test", *plain)
    call("train", *plain)
    folders = [out / "models" / f"stpm-{category}-seed0" for category in ("bottle", "cable")]
    assert capsys.readouterr().out.split() == [word for folder in folders for word in ("saved", str(folder))]
    assert not (out / "metrics.csv").exists()
    call("test", *plain)
    tested = pd.read_csv(out / "test" / "metrics.csv")
    assert list(tested["category"]) == ["bottle", "cable"] and tested["image_auroc"].between(0, 1).all()
    assert (out / "test" / "bottle" / "stpm-seed0.png").exists() and "mean over" in capsys.readouterr().out

    with pytest.raises(ValueError, match="detectors of several products: stpm-bottle-seed0, stpm-cable-seed0"):
        call("score", str(root), *plain)
    with pytest.raises(ValueError, match=r"made with \{'size': \(64, 64\)\}, the configuration says"):
        call("test", *plain, "--size", "96")
    with pytest.raises(ValueError, match=r"made with \{'white': 65535\}, the configuration says \{'white': 1023\}"):
        call("test", *plain, "--white", "1023")
    with pytest.raises(ValueError, match=r"made with \{'maps': 'plain'\}, the configuration says .*'whitened floor="):
        call("test", *plain, "--maps", "whitened")
    call("test", *plain, "--maps", "auto", "--results", str(tmp_path / "auto"))
    assert set(pd.read_csv(tmp_path / "auto" / "metrics.csv")["maps"]) == {"plain"}
    with pytest.raises(ValueError, match="holds what a run or a training made; name another folder with --results"):
        call("test", *plain, "--results", str(out))
    with pytest.raises(ValueError, match=r"my\.yaml' is a file; expected a folder"):
        call("test", *plain, "--results", str(file))
    with pytest.raises(ValueError, match="holds results with other settings"):
        call("train", *plain, "--steps", "3")
    code = ending(monkeypatch, "score", str(root / "bottle" / "test"), *plain, "--category", "bottle")
    rows = pd.read_csv(out / "scores" / "scores.csv")
    assert code == (2 if "anomalous" in set(rows["verdict"]) else 0) and len(rows) == 6
    assert all((out / "scores" / name).exists() for name in rows["map"])
    half, scored = tmp_path / "half.yaml", scores.scored
    asked: dict[str, Any] = {}
    half.write_text(file.read_text(encoding="utf-8").replace("precision: auto", "precision: bf16"), encoding="utf-8")
    monkeypatch.setattr(scores, "scored", lambda *given, **how: asked.update(how) or scored(*given, **how))
    ending(monkeypatch, "score", str(root / "bottle" / "test"), "--config", str(half), "--category", "bottle")
    assert asked["precision"] == "bf16"

    monkeypatch.setattr(runner, "latency_ms", lambda *arguments: 1.0)
    call("run", *plain)
    finished = pd.read_csv(out / "metrics.csv")
    assert list(finished["image_auroc"].round(5)) == list(tested["image_auroc"].round(5))
    capsys.readouterr()
    call("train", *plain)
    assert capsys.readouterr().out.split()[::2] == ["there", "there"]


def test_exit_codes_of_score(
    judges: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mild, strict = judges
    image = str(trees.picture(tmp_path / "shots" / "a, b.png"))
    assert ending(monkeypatch, "score", image, "--detector", mild) == 0
    assert ending(monkeypatch, "score", image, "--detector", strict) == 2
    assert ending(monkeypatch, "score", image, "--detector", strict, "--nonsense") == 1
    assert ending(monkeypatch, "score") == 1
    for wrong in ([], ["--detector", "nowhere"], ["--detector", mild, "--config", "x.yaml"]):
        said = ending(monkeypatch, "score", image, *wrong)
        assert isinstance(said, str) and said.startswith("kdlib: ")
    (tmp_path / "shots" / "broken.png").write_bytes(b"no image")
    capsys.readouterr()
    assert ending(monkeypatch, "score", str(tmp_path / "shots"), "--detector", mild) == 1
    said = capsys.readouterr()
    rows = list(csv.DictReader(said.out.splitlines()))
    assert [row["verdict"] for row in rows] == ["normal", "error"] and rows[0]["image"] == image
    assert said.err.count("broken.png") == 1 and rows[1]["score"] == "" and float(rows[0]["threshold"]) == 1e9
    assert ending(monkeypatch, "score", str(tmp_path / "shots"), "--detector", strict) == 2


def test_scores_and_maps_in_a_folder(judges: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one/a.png", "two/a.png", "two/deep/[1].png", "two/masks/a.png", "two/a_mask.png"):
        trees.picture(tmp_path / "in" / name, (30, 20))
    given = [str(tmp_path / "in" / "*" / "a.png"), str(tmp_path / "in" / "two")]
    folder = tmp_path / "results"
    ending(monkeypatch, "score", *given, "--detector", judges[0], "--results", str(folder))
    rows = pd.read_csv(folder / "scores.csv")
    assert list(rows.columns) == ["image", "score", "threshold", "verdict", "map"]
    maps = {Path(name).relative_to("maps").as_posix() for name in rows["map"]}
    assert maps == {"one/a.png.png", "two/a.png.png", "two/deep/[1].png.png"}
    for name in rows["map"]:
        with Image.open(folder / name) as file:
            assert file.size == (30, 20) and file.mode == "RGB"
    code = ending(monkeypatch, "score", str(tmp_path / "in/two/deep/[1].png"), "--detector", judges[0])
    assert code == 0


def test_images_may_lie_where_results_go(
    judges: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a**b.png", f"{'n' * 240}.png", f"{'n' * 248}.png"):
        trees.picture(tmp_path / "in" / name)
    given = (str(tmp_path / "in"), "--detector", judges[0], "--results", str(tmp_path / "in"))
    for _ in range(2):
        assert ending(monkeypatch, "score", *given) == 1  # one name is too long for a file that ends in .png.png
        rows = pd.read_csv(tmp_path / "in" / "scores.csv")
        assert rows["verdict"].tolist() == ["normal", "normal", "error"] and rows["map"].notna().sum() == 2
    for _ in range(2):
        assert ending(monkeypatch, "features", *given, "--level", "0", "--channels", "1") == 1
        assert len(list((tmp_path / "in").glob("*.level0.png"))) == 2
    with pytest.raises(ValueError, match=r"scores\.csv' is a file; expected a folder"):
        call("score", *given[:-1], str(tmp_path / "in" / "scores.csv"))


def test_images_that_are_not_there(judges: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    for name, words in (("none.png", "no file or folder"), ("*.png", "no images in"), ("empty", "no images in")):
        said = ending(monkeypatch, "score", str(tmp_path / name), "--detector", judges[0])
        assert isinstance(said, str) and words in said


def test_features_are_drawn_for_every_image_and_level(
    judges: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trees.pictures(tmp_path / "in", 2)
    given = ("features", str(tmp_path / "in"), "--detector", judges[0], "--results", str(tmp_path / "out"))
    call(*given, "--level", "0", "2", "--channels", "2")
    names = [f"00{image}.png.level{level}.png" for image in (0, 1) for level in (0, 2)]
    assert capsys.readouterr().out.split() == [str(tmp_path / "out" / name) for name in names]
    with pytest.raises(ValueError, match="no level 7"):
        call(*given, "--level", "7")
    (tmp_path / "in" / "000.png").write_bytes(b"no image")
    assert ending(monkeypatch, *given, "--level", "0", "--channels", "1") == 1
    said = capsys.readouterr()
    assert "000.png cannot be read" in said.err and said.out.split() == [str(tmp_path / "out" / names[2])]


def test_every_image_is_scored_once_and_no_picture_of_our_own(
    judges: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = tmp_path / "line"
    for name in ("0.png", "1.png", "1.jpg"):
        trees.picture(line / name)
    (line / "1.jpg").write_bytes(b"no image")  # the same stem: neither is opened to ask which is a mask
    given = ("score", str(line), "--detector", judges[0], "--results", str(line / "out"))
    for _ in range(2):
        assert ending(monkeypatch, *given) == 1
        assert pd.read_csv(line / "out" / "scores.csv")["verdict"].tolist() == ["normal", "error", "normal"]
    assert expand(["score", "0.png", "--category", "P", "1.png"]) == ["score", "0.png", "--category", "P", "1.png"]
    assert expand(["features", "--level", "0", "2"]) == ["features", "--level", "0", "--level", "2"]
