"""Studies: rows that one command writes, keeps when it is stopped, and measures again when they are outdated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dataset_trees as trees
import pandas as pd
import pytest

import kdlib as kd
from kdlib.contract import Distiller
from kdlib.training.loop import History
from kdlib.trials import runner, study, table
from kdlib.trials.trial import Recipe

SHORT: dict[str, Any] = {"batch_size": 4, "weights": "random"}
BOTH = (
    Recipe(method="stpm", options=SHORT, stops=(1, 3)),
    Recipe(method="rd", variant="alone", options=SHORT, stops=(2,), protocol="single", classes=1),
)
STPM = BOTH[:1]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for category in ("bottle", "cable"):
        trees.mvtec(tmp_path / "pictures", category, train=5)
    return tmp_path / "pictures"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods of all trainings, as they begin."""
    names: list[str] = []
    real = runner.fit

    def fit(model: Distiller, *arguments: Any, **options: Any) -> History:
        names.append(model.name)
        return real(model, *arguments, **options)

    monkeypatch.setattr(runner, "fit", fit)
    return names


def run(root: Path, recipes: tuple[Recipe, ...], seeds: tuple[int, ...] = (0,), name: str = "small") -> list[table.Row]:
    return table.read(study.run(name, recipes, str(root), seeds, 64, root.parent, lambda line: None))


def without_seconds(rows: list[table.Row]) -> list[table.Row]:
    return [row | {"train_seconds": "", "latency_ms_p50": ""} for row in rows]


def test_rows_for_every_category_seed_and_length(root: Path, tmp_path: Path) -> None:
    rows = run(root, BOTH, seeds=(0, 1))
    assert (tmp_path / "small_pictures.csv").read_text().splitlines()[0] == ",".join(study.COLUMNS)
    together = [(r["category"], r["seed"], r["steps"]) for r in rows if r["method"] == "stpm"]
    assert sorted(together) == [(c, s, n) for c in ("bottle", "cable") for s in "01" for n in "13"]
    alone = [(r["category"], r["classes"], r["protocol"]) for r in rows if r["variant"] == "alone"]
    assert alone == [("bottle", "1", "single")] * 2
    assert all(0 <= float(r["image_auroc"]) <= 1 and r["size"] == "64" for r in rows)
    assert {r["options"] for r in rows} == {"batch_size=4 weights=random"}


def test_evaluating_on_the_way_changes_nothing(root: Path) -> None:
    often = run(root, STPM, name="a")
    once = run(root, (replace(STPM[0], stops=(3,)),), name="b")
    assert without_seconds([row for row in often if row["steps"] == "3"]) == without_seconds(once)


def test_training_goes_on_in_training_mode_after_a_stop(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    real = runner.Stops.__call__

    def call(stops: runner.Stops, history: History) -> None:
        real(stops, history)
        modes.append(stops.model.training)

    monkeypatch.setattr(runner.Stops, "__call__", call)
    run(root, STPM)
    assert modes == [True, True, True]


def test_a_stopped_study_goes_on(root: Path, tmp_path: Path, trained: list[str]) -> None:
    run(root, STPM)
    before = (tmp_path / "small_pictures.csv").read_text()
    run(root, BOTH)
    assert trained == ["stpm", "rd"]
    assert (tmp_path / "small_pictures.csv").read_text().startswith(before)


def test_a_study_killed_at_its_last_stop_keeps_the_earlier_ones(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(root, STPM, name="whole")
    real = runner.measured

    def killed(trial: Any, model: Any, history: History, *others: Any) -> list[runner.Row]:
        if len(history.rows) == 3:
            raise KeyboardInterrupt
        return real(trial, model, history, *others)

    monkeypatch.setattr(runner, "measured", killed)
    with pytest.raises(KeyboardInterrupt):
        run(root, STPM)
    monkeypatch.setattr(runner, "measured", real)
    steps: list[Any] = []
    monkeypatch.setattr("kdlib.training.loop._Trainer._record", lambda *arguments: steps.append(arguments))
    assert without_seconds(run(root, STPM)) == without_seconds(whole) and not steps


def test_a_damaged_file_of_stops_is_named(root: Path, tmp_path: Path, trained: list[str]) -> None:
    run(root, STPM)
    for text in ("{", "[]", '{"1": null}', '{"one": {"seconds": 1, "rows": []}}'):
        (tmp_path / "stops.json").write_text(text)
        with pytest.raises(ValueError, match=r"stops\.json' is damaged"):
            runner.Stops(None, None, tmp_path / "stops.json")  # type: ignore[arg-type]


def test_a_further_stop_repeats_no_row(root: Path) -> None:
    run(root, STPM)
    rows = run(root, (replace(STPM[0], stops=(1, 3, 4)),))
    assert sorted((r["category"], r["steps"]) for r in rows) == [(c, n) for c in ("bottle", "cable") for n in "134"]


def test_a_variant_defined_anew_replaces_its_rows(root: Path) -> None:
    run(root, BOTH)
    rows = run(root, (Recipe(method="stpm", options=SHORT | {"half": True}, stops=(1,)),))
    assert {r["options"] for r in rows if r["method"] == "stpm"} == {"batch_size=4 half=True weights=random"}
    assert [r["variant"] for r in rows if r["method"] == "rd"] == ["alone"]


def test_a_table_without_files_counts_as_done(root: Path, tmp_path: Path, trained: list[str]) -> None:
    """As the committed tables: their rows are there, the trials' files are not, nor on which images they were made."""
    run(root, STPM)
    (tmp_path / "trials").rename(tmp_path / "elsewhere")
    path = tmp_path / "small_pictures.csv"
    pd.read_csv(path, dtype=str).drop(columns="data").to_csv(path, index=False)
    run(root, STPM)
    assert trained == ["stpm"] and not (tmp_path / "trials").exists()
    before = table.read(path)
    rows = run(root, STPM, seeds=(0, 1))
    assert trained == ["stpm", "stpm"] and [r for r in rows if r["seed"] == "0"] == [r | {"data": ""} for r in before]
    trees.pictures(root / "bottle" / "train" / "good", 6)
    run(root, STPM, seeds=(0, 1))
    assert trained == ["stpm", "stpm", "stpm"]


def test_options_of_all_recipes_are_checked_first(root: Path, trained: list[str]) -> None:
    for options, words in (({"steps": "abc"}, "steps is 'abc'"), ({"cram": False}, r"no setting \['cram'\]")):
        with pytest.raises(ValueError, match=words):
            run(root, (*STPM, Recipe(method="snl", options=options)))
    assert not trained


def test_finished_students_are_saved_and_measured_in_half_precision(tmp_path: Path) -> None:
    for category in ("bottle", "cable"):
        trees.mvtec(tmp_path / "pictures", category, train=20)
    maps = ("plain", "normal")
    recipes = (
        Recipe(method="stpm", options=SHORT | {"steps": 2}, maps=maps, half=True),
        Recipe(method="nearest", options={"weights": "random", "patches": 20}, maps=maps, half=True),
    )
    students = tmp_path / "students"
    root = str(tmp_path / "pictures")
    path = study.run("done", recipes, root, [0, 1], 64, tmp_path, lambda line: None, students=students)
    rows = table.read(path)
    assert len(rows) == 2 * 2 * 2 * 2 and {row["maps"] for row in rows} == set(maps)
    assert [folder.name for folder in students.iterdir()] == ["stpm"]
    test = kd.data.load(root, size=64).test.of("cable")
    measured = kd.evaluate(kd.load(students / "stpm").model, test, precision="fp32").metrics()
    (row,) = [r for r in rows if (r["method"], r["maps"], r["category"], r["seed"]) == ("stpm", "plain", "cable", "0")]
    assert float(row["image_auroc"]) == pytest.approx(measured["image_auroc"], abs=1e-4)
