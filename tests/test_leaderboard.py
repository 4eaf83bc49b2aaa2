"""The leaderboard: what is on it, what it sums up, and that nothing is chosen by the images it reports on."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from kdlib.course import leaderboard
from kdlib.course.commands import study
from kdlib.course.studies import CHOICES, TUNING, check_data
from kdlib.methods import METHODS, preset
from kdlib.trials import study as studies

ROW = dict.fromkeys(studies.COLUMNS, "") | {
    "method": "rd/full",
    "protocol": "multi",
    "classes": "2",
    "seed": "0",
    "steps": "3",
    "size": "256",
    "pixel_auroc": "0.9",
    "aupro": "0.8",
    "train_seconds": "60",
    "latency_ms_p50": "20",
    "megabytes": "5.5",
    "runtime": "cpu, fp32",
    "maps": "plain",
}


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("data", ["workshop_report", "mill_report", "/photographs/real", "./workshop"])
def test_nothing_is_chosen_by_images_that_are_reported_on(name: str, data: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"settings are chosen by study '{name}', and '{data}' is for reporting"):
        study(name, data=data, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_tuning_images_may_be_chosen_by_and_anything_may_be_studied() -> None:
    for data in TUNING:
        check_data("ladder", data)
    check_data("one_model", "workshop_report")


def test_every_method_has_a_finished_student_on_the_board() -> None:
    names = [recipe.method for recipe in leaderboard.ALL]
    assert names == ["mean", *(f"{name}/full" for name in METHODS if name != "pdn"), *leaderboard.NEAREST]
    for recipe in leaderboard.ALL:
        assert recipe.half and set(recipe.maps) >= {"plain", "normal"}
        assert ("whitened" in recipe.maps) == (recipe.method not in leaderboard.NEAREST)
        preset(recipe.method)
    assert not {data for data, _, _ in leaderboard.ROUNDS} & set(TUNING)


def test_means_over_categories_and_spread_over_seeds(tmp_path: Path) -> None:
    values = {("0", "a"): 0.5, ("0", "b"): 0.7, ("1", "a"): 0.9, ("1", "b"): 0.7}
    rows = [ROW | {"seed": s, "category": c, "image_auroc": str(v)} for (s, c), v in values.items()]
    rows.append(ROW | {"category": "a", "image_auroc": "0.1", "maps": "normal"})  # b is missing: not yet whole
    rows += [ROW | {"category": c, "image_auroc": "0.9", "method": "nearest"} for c in "ab"]
    pd.DataFrame(rows).to_csv(tmp_path / "leaderboard_workshop_report.csv", index=False)
    board = leaderboard.summary(tmp_path)
    assert board["set"].tolist() == ["workshop_report"] * 2 and board["method"].tolist() == ["nearest", "rd/full"]
    rd = board.iloc[1]
    assert (rd["image_auroc"], rd["image_auroc_spread"], rd["seeds"]) == (0.7, pytest.approx(0.1414), 2)
    assert rd["megabytes"] == 5.5 and pd.isna(board.iloc[0]["image_auroc_spread"])


def test_seconds_are_those_of_processors(tmp_path: Path) -> None:
    row = ROW | {"category": "a", "classes": "1", "image_auroc": "0.5"}
    fast = row | {"runtime": "cuda, fp32", "train_seconds": "2", "latency_ms_p50": "1", "image_auroc": "0.7"}
    rows = [row, fast | {"seed": "1"}, fast | {"method": "nearest"}]
    pd.DataFrame(rows).to_csv(tmp_path / "leaderboard_workshop_report.csv", index=False)
    board = leaderboard.summary(tmp_path).set_index("method")
    assert board.loc["rd/full", ["image_auroc", "train_seconds", "latency_ms_p50"]].tolist() == [0.6, 60, 20]
    assert board.loc["nearest", ["train_seconds", "latency_ms_p50"]].isna().all()


def test_an_empty_folder_has_an_empty_board(tmp_path: Path) -> None:
    assert leaderboard.summary(tmp_path).empty


def test_unknown_methods_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the leaderboard has no \['rd'\]; it has"):
        leaderboard.run(None, ["rd"], 1, tmp_path, tmp_path, print)


def test_one_model_per_product_trains_for_a_third_of_the_steps() -> None:
    by_method = {recipe.method: leaderboard.alone(recipe) for recipe in leaderboard.ALL}
    assert by_method["rd/full"].protocol == "single" and by_method["rd/full"].settings() == {"steps": 833}
    assert by_method["nearest"].settings() == {}
