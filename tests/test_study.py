"""Studies: rows that one command writes, keeps when it is stopped, and sums up over categories and seeds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import dataset_trees as trees
import pytest

from kdlib import claims, study
from kdlib.cli import app, expand
from kdlib.course.studies import STUDIES
from kdlib.training.state import write_csv
from kdlib.trials.study import Trial

SHORT: dict[str, Any] = {"batch_size": 4, "weights": "random"}
TRIALS = (
    Trial(method="stpm", options=SHORT, stops=(1, 3)),
    Trial(method="rd", variant="alone", options=SHORT, stops=(2,), protocol="single", classes=1),
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for category in ("bottle", "cable"):
        trees.mvtec(tmp_path / "pictures", category, train=5)
    return tmp_path / "pictures"


def test_rows_for_every_category_seed_and_length(root: Path, tmp_path: Path) -> None:
    path = study.run("small", TRIALS, str(root), [0, 1], 64, tmp_path)
    assert path == tmp_path / "small_pictures.csv"
    rows = study.read(path)
    together = [(r["category"], r["seed"], r["steps"]) for r in rows if r["method"] == "stpm"]
    assert sorted(together) == [(c, s, n) for c in ("bottle", "cable") for s in "01" for n in "13"]
    alone = [(r["category"], r["classes"], r["protocol"]) for r in rows if r["variant"] == "alone"]
    assert alone == [("bottle", "1", "single")] * 2
    assert all(0 <= float(r["image_auroc"]) <= 1 and r["size"] == "64" for r in rows)


def test_evaluating_on_the_way_changes_nothing(root: Path, tmp_path: Path) -> None:
    often = study.read(study.run("a", TRIALS[:1], str(root), [0], 64, tmp_path))
    once = study.read(study.run("b", (Trial(method="stpm", options=SHORT, stops=(3,)),), str(root), [0], 64, tmp_path))
    for row in once:
        same = next(r for r in often if (r["steps"], r["category"]) == ("3", row["category"]))
        assert {k: v for k, v in same.items() if k != "train_seconds"} == {
            k: v for k, v in row.items() if k != "train_seconds"
        }


def test_a_stopped_study_goes_on(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study.run("small", TRIALS[:1], str(root), [0], 64, tmp_path)
    before = (tmp_path / "small_pictures.csv").read_text()
    trained = []
    real = study._train
    monkeypatch.setattr(study, "_train", lambda trial, *rest: trained.append(trial.method) or real(trial, *rest))
    study.run("small", TRIALS, str(root), [0], 64, tmp_path)
    assert trained == ["rd"]
    assert (tmp_path / "small_pictures.csv").read_text().startswith(before)


def test_a_further_stop_repeats_no_row(root: Path, tmp_path: Path) -> None:
    study.run("small", TRIALS[:1], str(root), [0], 64, tmp_path)
    longer = (Trial(method="stpm", options=SHORT, stops=(1, 3, 4)),)
    rows = study.read(study.run("small", longer, str(root), [0], 64, tmp_path))
    assert sorted((r["category"], r["steps"]) for r in rows) == [(c, n) for c in ("bottle", "cable") for n in "134"]


def test_a_variant_defined_anew_replaces_its_rows(root: Path, tmp_path: Path) -> None:
    anew = Trial(method="stpm", options=SHORT | {"half": True}, stops=(1,))
    study.run("small", (TRIALS[0], TRIALS[1]), str(root), [0], 64, tmp_path)
    rows = study.read(study.run("small", (anew,), str(root), [0], 64, tmp_path))
    assert {row["options"] for row in rows if row["method"] == "stpm"} == {"batch_size=4 half=True weights=random"}
    assert [row["variant"] for row in rows if row["method"] == "rd"] == ["alone"]


def test_mean_over_categories_then_over_seeds() -> None:
    values = {("0", "a"): 0.5, ("0", "b"): 0.7, ("1", "a"): 0.9, ("1", "b"): 0.7}
    blank = dict.fromkeys(study.COLUMNS, "")
    rows = [blank | {"method": "rd", "seed": s, "category": c, "aupro": str(v)} for (s, c), v in values.items()]
    found = study.figures(rows, "aupro", "method")[("rd",)]
    assert (round(found.mean, 9), round(found.spread, 9), found.seeds) == (0.7, round(0.02**0.5, 9), 2)
    assert str(found) == "0.700 ± 0.141"
    assert str(study.figures(rows[:2], "aupro")[()]) == "0.600"
    with pytest.raises(ValueError, match=r"no columns \['auc'\]"):
        study.figures(rows, "auc")


def test_tables_for_readers(tmp_path: Path) -> None:
    blank = dict.fromkeys(study.COLUMNS, "")
    rows = [blank | {"variant": v, "seed": s, "aupro": a} for v, s, a in (("", "0", "0.5"), ("", "1", "0.7"))]
    expected = ["| variant | seeds | AUPRO |", "| --- | --- | --- |", "| preset | 2 | 0.600 ± 0.141 |"]
    assert study.table(rows, "variant", metrics=["aupro"]).splitlines() == expected
    lengths = [blank | {"steps": steps, "aupro": "0.5"} for steps in ("1200", "300")]
    by_length = study.table(lengths, "variant", "steps", metrics=["aupro"]).splitlines()
    assert [line.split(" | ")[1] for line in by_length[2:]] == ["300", "1200"]
    assert "python -m kdlib claims" in claims.table(tmp_path, "SNL")
    claims.ledger(tmp_path)
    assert claims.table(tmp_path, "DHKD").count("not measured") == sum(c.paper == "DHKD" for c in claims.CLAIMS)


def test_seeds_that_miss_a_category_do_not_count(tmp_path: Path) -> None:
    blank = dict.fromkeys(study.COLUMNS, "") | {"classes": "2"}
    rows = [blank | {"seed": s, "category": c} for s, c in (("0", "a"), ("0", "b"), ("1", "a"))]
    write_csv(tmp_path / "x.csv", study.COLUMNS, rows)
    assert [row["seed"] for row in study.read(tmp_path / "x.csv")] == ["0", "0"]


def test_foreign_files_and_unknown_studies_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n")
    with pytest.raises(ValueError, match="Move it away"):
        study.read(tmp_path / "x.csv")
    with pytest.raises(ValueError, match="unknown study 'nothing'"):
        app(expand(["study", "nothing"]), standalone_mode=False)
    with pytest.raises(ValueError, match=r"no variants \['no mask'\]; it has .*'no masks'"):
        app(expand(["study", "dnpkd", "--variant", "no mask"]), standalone_mode=False)
    assert STUDIES


def test_the_ledger_says_what_seeds_agree_on(tmp_path: Path) -> None:
    blank = dict.fromkeys(study.COLUMNS, "")
    gains = {"no masks": (0.02, 0.03, 0.04), "no SubNet": (-0.02, -0.03, -0.04), "no sparsity": (0.02, -0.01, 0.01)}
    rows = [
        blank | {"variant": "", "classes": "6", "seed": str(s), "pixel_auroc": "0.9"}
        for s in range(3)
        for _ in range(6)
    ]
    for variant, values in gains.items():
        rows += [
            blank | {"variant": variant, "classes": "6", "seed": str(s), "pixel_auroc": str(0.9 - v)}
            for s, v in enumerate(values)
            for _ in range(6)
        ]
    write_csv(tmp_path / "dnpkd_workshop.csv", study.COLUMNS, rows)
    with claims.ledger(tmp_path).open(newline="") as file:
        found = {row["claim"]: row for row in csv.DictReader(file)}
    assert found["the masks help"]["verdict"] == "holds here" and found["the masks help"]["mean"] == "+0.0300"
    assert found["SubNet helps"]["verdict"] == "does not hold here"
    assert found["sparsity of the masks helps"]["verdict"] == "undecided here"
    assert found["CRAM helps"]["verdict"] == "not measured"
    assert claims._verdict([0.02, 0.02]) == "too few seeds"
    assert len(found) == len({claim.claim for claim in claims.CLAIMS})


def test_every_claim_compares_trials_that_a_study_has() -> None:
    for claim in claims.CLAIMS:
        for chosen in (claim.better, claim.worse):
            fits = [
                trial
                for trial in STUDIES[claim.study]
                if chosen.get("variant", trial.variant) == trial.variant
                and chosen.get("method", trial.method) == trial.method
                and chosen.get("protocol", trial.protocol) == trial.protocol
                and int(chosen.get("steps", (trial.stops or (0,))[-1])) in (trial.stops or (0,))
            ]
            assert fits, (claim.claim, chosen)
