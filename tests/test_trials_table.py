"""Tables of trials: what they read and refuse, means over categories and then over seeds, Markdown."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from kdlib.course import claims, leaderboard
from kdlib.course.statements import METRICS
from kdlib.course.studies import STUDIES
from kdlib.trials import table

BLANK = dict.fromkeys(table.COLUMNS, "")
STUDIED = STUDIES | {"leaderboard": (*leaderboard.ALL, *map(leaderboard.alone, leaderboard.ALL))}
RESULTS = sorted((Path(__file__).resolve().parents[1] / "data" / "results").glob("*_*.csv"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_tables_are_read(path: Path) -> None:
    rows = table.read(path)
    recipes = next(known for name, known in STUDIED.items() if path.stem.startswith(f"{name}_"))
    options = {(r.method, r.variant, r.protocol): r.written_options() for r in recipes}
    assert rows and all(0 <= float(row["image_auroc"]) <= 1 for row in rows)
    for row in rows:
        assert options[row["method"], row["variant"], row["protocol"]] == row["options"]
    text = path.read_text(encoding="utf-8")
    assert table.read_all(path)[text.partition("\n")[0].split(",")].to_csv(index=False) == text


def test_mean_over_categories_then_over_seeds() -> None:
    values = {("0", "a"): 0.5, ("0", "b"): 0.7, ("1", "a"): 0.9, ("1", "b"): 0.7}
    rows = [BLANK | {"method": "rd", "seed": s, "category": c, "aupro": str(v)} for (s, c), v in values.items()]
    figure = table.figures(rows, "aupro", "method")[("rd",)]
    assert (round(figure.mean, 9), round(figure.spread, 9), figure.seeds) == (0.7, round(0.02**0.5, 9), 2)
    assert str(figure) == "0.700 ± 0.141"
    assert str(table.figures(rows[:2], "aupro")[()]) == "0.600"
    assert table.figures(pd.DataFrame(rows), "aupro", "method") == {("rd",): figure}
    assert table.figures([], "aupro", "method") == table.figures([], "aupro") == {}
    with pytest.raises(ValueError, match=r"no columns \['auc'\]"):
        table.figures(rows, "auc")


def test_a_category_without_masks_makes_no_mean_of_the_others() -> None:
    rows = [BLANK | {"seed": "0", "category": c, "aupro": v} for c, v in (("a", "0.5"), ("b", "nan"))]
    assert str(table.figures(rows, "aupro")[()]) == "nan"


def test_tables_for_readers() -> None:
    rows = [BLANK | {"variant": "", "seed": seed, "aupro": value} for seed, value in (("0", "0.5"), ("1", "0.7"))]
    expected = ["| variant | seeds | AUPRO |", "| --- | --- | --- |", "| preset | 2 | 0.600 ± 0.141 |"]
    assert table.table(rows, "variant", metrics=["aupro"]).splitlines() == expected
    lengths = [BLANK | {"steps": steps, "aupro": "0.5"} for steps in ("1200", "300")]
    by_length = table.table(lengths, "variant", "steps", metrics=["aupro"]).splitlines()
    assert [line.split(" | ")[1] for line in by_length[2:]] == ["300", "1200"]


def test_means_leave_out_what_is_not_known() -> None:
    row = {"method": "m", "image_auroc": "0.5", "pixel_auroc": "nan", "aupro": "nan", "train_seconds": "1"}
    means = table.means(pd.DataFrame([row, row | {"image_auroc": "0.7", "aupro": "0.25"}]))
    assert means == "m            2 rows  image_auroc 0.600  pixel_auroc nan  aupro 0.250  train_seconds 1.000"


def test_seeds_that_miss_a_category_do_not_count(tmp_path: Path) -> None:
    rows = [BLANK | {"classes": "2", "seed": s, "category": c} for s, c in (("0", "a"), ("0", "b"), ("1", "a"))]
    pd.DataFrame(rows).to_csv(tmp_path / "x.csv", index=False)
    assert [row["seed"] for row in table.read(tmp_path / "x.csv")] == ["0", "0"]


DAMAGED = {
    "": "damaged",
    "a,b\n": "other columns",
    ",".join(table.COLUMNS) + '\nrd,"': "damaged",
    ",".join(table.COLUMNS) + "\nrd,,,multi,6,a,0,300,0.8,0.9,x,1.0,128,cpu\n": "line 2 has 'x' as aupro",
    ",".join(table.COLUMNS) + "\nrd,,,multi,six,a,0,300,0.8,0.9,0.7,1.0,128,cpu\n": "line 2 has 'six' as classes",
    ",".join(table.COLUMNS) + "\nrd,,,multi,6,a,0.5,300,0.8,0.9,0.7,1.0,128,cpu\n": "line 2 has '0.5' as seed",
    "\udcff\udcfe": "damaged",
}


@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_tables_are_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=DAMAGED[text]) as error:
        table.read(tmp_path / "x.csv")
    assert "x.csv" in str(error.value)


def test_the_ledger_says_what_seeds_agree_on(tmp_path: Path) -> None:
    gains = {"no masks": (0.02, 0.03, 0.04), "no SubNet": (-0.02, -0.03, -0.04), "no sparsity": (0.02, -0.01, 0.01)}
    rows = []
    for seed in range(3):
        values = {"": 0.9} | {variant: 0.9 - gain[seed] for variant, gain in gains.items()}
        for variant, value in values.items():
            row = {"variant": variant, "classes": "6", "seed": str(seed), **dict.fromkeys(METRICS, str(value))}
            rows += [BLANK | row] * 6
    pd.DataFrame(rows).to_csv(tmp_path / "dnpkd_workshop.csv", index=False)
    ledger = claims.ledger(tmp_path)
    lines = ledger[ledger["metric"] == "pixel_auroc"].set_index("claim")
    assert lines.loc["the masks help", ["verdict", "mean"]].tolist() == ["holds here", "+0.0300"]
    assert lines.loc["SubNet helps", "verdict"] == "does not hold here"
    assert lines.loc["sparsity of the masks helps", "verdict"] == "undecided here"
    assert lines.loc["CRAM helps", "verdict"] == "not measured"
    assert claims._verdict([0.02, 0.02]) == "too few seeds"


def test_the_committed_ledger_is_that_of_the_committed_tables() -> None:
    ledger = claims.ledger(RESULTS[0].parent).to_csv(index=False, lineterminator="\n")
    assert ledger == (RESULTS[0].parent / "claims.csv").read_text(encoding="utf-8")


def test_a_missing_or_damaged_ledger_says_what_writes_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"claims\.csv.*python -m kdlib claims"):
        claims.written(tmp_path)
    for text in ("", "paper,claim\n", 'paper,"'):
        (tmp_path / "claims.csv").write_text(text)
        with pytest.raises(ValueError, match=r"claims\.csv.*python -m kdlib claims"):
            claims.written(tmp_path)


def test_every_claim_compares_trials_that_a_study_has() -> None:
    for claim in claims.CLAIMS:
        for chosen in (claim.better, claim.worse):
            fits = []
            for recipe in STUDIES[claim.study]:
                stops = recipe.stops or (0,)
                same = all(
                    chosen.get(name, getattr(recipe, name)) == getattr(recipe, name)
                    for name in ("variant", "method", "protocol")
                )
                fits.append(same and int(chosen.get("steps", stops[-1])) in stops)
            assert any(fits), (claim.claim, chosen)
