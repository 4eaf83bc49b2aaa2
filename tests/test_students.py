"""Finished students: they open, are small, and give the leaderboard's numbers again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kdlib as kd
from kdlib.trials import table

REPOSITORY = Path(__file__).resolve().parents[1]
STUDENTS = sorted(folder.parent for folder in (REPOSITORY / "data" / "students").glob("*/model.safetensors"))
ROWS = REPOSITORY / "data" / "results" / "leaderboard_workshop_report.csv"
FIRST = "hex_nut"
"""The product of the default test."""


def rows(student: Path, category: str) -> dict[str, table.Row]:
    """A student's rows on a product, by how its maps are scored."""
    kept = [row for row in table.read(ROWS) if row["method"].partition("/")[0] == student.name]
    joint = [row for row in kept if (row["protocol"], row["seed"], row["category"]) == ("multi", "0", category)]
    return {row["maps"]: row for row in joint}


@pytest.mark.parametrize("student", STUDENTS, ids=lambda folder: folder.name)
def test_a_student_is_small_and_says_what_it_is(student: Path) -> None:
    detector = kd.load(student)
    assert detector.model.name == student.name and detector.size == (256, 256)
    assert (student / "model.safetensors").stat().st_size < 7e6
    assert rows(student, FIRST).keys() >= {"plain", "normal", "whitened"}


def test_on_boards_the_autoencoder_adds_what_is_logically_wrong() -> None:
    boards = kd.data.load("workshop_report", "circuit_board", size=256)
    detector = kd.load(REPOSITORY / "data" / "students" / "circuit_board" / "efficientad")
    swapped = []
    for mix in (0.0, 1.0):  # the student's map, the autoencoder's
        detector.model.config = replace(detector.model.config, mix=mix)  # type: ignore[type-var, assignment]
        result = kd.evaluate(detector.model, boards.test, precision="fp32")
        swapped.append(result.of_defect("swapped_parts").metrics()["aupro"])
    assert swapped[1] > swapped[0] + 0.2, swapped


def check(student: Path, category: str) -> None:
    images = kd.data.load("workshop_report", [category], size=256)
    model = kd.load(student).model
    wanted = rows(student, category)
    precision = wanted["plain"]["runtime"].rpartition(", ")[2]
    measured = {"plain": kd.evaluate(model, images.test, precision=precision)}
    for maps in ("normal", "whitened"):
        detector = kd.calibrate(model, images.calib, maps=maps, precision=precision)  # type: ignore[arg-type]
        measured[maps] = kd.evaluate(detector, images.test)
    for maps, result in measured.items():
        for metric in ("image_auroc", "pixel_auroc", "aupro"):
            assert result.metrics()[metric] == pytest.approx(float(wanted[maps][metric]), abs=0.005), (maps, metric)


@pytest.mark.parametrize(
    "student", [folder for folder in STUDENTS if folder.name == "rd"], ids=lambda folder: folder.name
)
def test_a_student_gives_the_leaderboard_again(student: Path) -> None:
    check(student, FIRST)


@pytest.mark.students
@pytest.mark.parametrize("student", STUDENTS, ids=lambda folder: folder.name)
def test_the_promised_false_alarms_hold_on_fresh_images(student: Path) -> None:
    model, images = kd.load(student).model, kd.data.load("workshop_report", size=256)
    rates, promised = [], []
    for category in images.categories:
        detector = kd.calibrate(model, images.calib.of(category), maps="whitened", quantile=0.9, precision="fp32")
        test = images.test.of(category)
        fresh = kd.evaluate(detector, test.subset(np.flatnonzero(test.labels == 0)), keep="none")
        rates.append(detector.threshold.decide(fresh.scores).mean())
        promised.append(detector.threshold.false_alarms)
    # The rate of one calibration set of 12 images spreads by 0.07 around its mean, that of six sets by 0.03.
    assert np.mean(rates) < np.mean(promised) + 3 * 0.03


@pytest.mark.students
@pytest.mark.parametrize("category", ["brushed_metal", "capsule", "circuit_board", "fabric", "hex_nut", "tiles"])
@pytest.mark.parametrize("student", STUDENTS, ids=lambda folder: folder.name)
def test_all_students_give_the_leaderboard_again(student: Path, category: str) -> None:
    check(student, category)
