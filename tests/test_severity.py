"""What is found of faint and of strong defects."""

from __future__ import annotations

from pathlib import Path

import dataset_trees as trees
import pandas as pd
import pytest
import tiny

import kdlib as kd
from kdlib.course import severity
from kdlib.scoring.metrics import image_metrics


@pytest.fixture
def splits(tmp_path: Path) -> kd.data.Splits:
    folder = trees.mvtec(tmp_path / "set", train=20) / "bottle"
    trees.pictures(folder / "test" / "broken", 6)
    trees.masks(folder / "ground_truth" / "broken", 6)
    return kd.data.load(tmp_path / "set", size=64)


def test_each_third_has_all_normal_images_and_its_part_of_every_kind_of_defect(splits: kd.data.Splits) -> None:
    model = tiny.build()
    parts = severity.by_severity(kd.evaluate(model, splits.test))
    assert list(parts) == list(severity.THIRDS)
    whole = {s.path for s in splits.test.samples if s.label}
    for name, part in parts.items():
        assert (part.labels == 0).sum() == (splits.test.labels == 0).sum(), name
    broken = {n: sorted(s.path.stem for s in part.samples if s.defect == "broken") for n, part in parts.items()}
    assert broken == {"faint": ["000", "001"], "middle": ["002", "003"], "strong": ["004", "005"]}
    assert {s.path for part in parts.values() for s in part.samples if s.label} == whole


def test_rows_of_a_student_are_kept_beside_those_of_others(
    splits: kd.data.Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(severity, "SIZE", 64)
    students, out = tmp_path / "students", tmp_path / "out"
    model = tiny.build()
    tiny.fit(model, splits.train)
    kd.save(tiny.calibrated(model, splits.calib), students / "stpm", half=True)
    lines: list[str] = []
    for methods in (["stpm"], ["nearest/coreset"], ["stpm"]):
        path = severity.run(methods, students, out, lines.append, str(tmp_path / "set"))
    rows = pd.read_csv(path)
    assert path.name == "severity.csv" and rows["method"].value_counts().to_dict() == {
        "nearest/coreset": 3,
        "stpm": 3,
    }
    assert rows["image_auroc"].between(0, 1).all() and rows["found"].between(0, 1).all()
    assert [line.split()[0] for line in lines] == ["stpm", "nearest/coreset", "stpm"]
    with pytest.raises(ValueError, match="no finished students"):
        severity.run(["rd"], students, out, lines.append, str(tmp_path / "set"))


def test_what_is_seen_counts_in_its_third(splits: kd.data.Splits) -> None:
    result = kd.evaluate(tiny.build(), splits.test)
    result.scores[:] = [sample.label and sample.path.stem >= "004" for sample in result.samples]
    rates = {}
    for name, part in severity.by_severity(result).items():
        rates[name] = image_metrics(part.scores, part.labels)["image_auroc"]
    assert rates == {"faint": 0.5, "middle": 0.5, "strong": 1.0}


def test_the_committed_table_has_every_third_of_every_product() -> None:
    rows = pd.read_csv(Path(__file__).resolve().parents[1] / "data" / "results" / "severity.csv")
    for method, part in rows.groupby("method"):
        counts = part.groupby("severity")["category"].nunique().to_dict()
        assert counts == dict.fromkeys(severity.THIRDS, 6) and len(part) == 18, method
        assert (part["normal"] == 60).all() and (part["defective"] == 32).all(), method
