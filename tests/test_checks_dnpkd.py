"""The checkers of notebook 04's exercises that build: a right answer, typical wrong ones, and none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import kdlib as kd
from kdlib.course import checks
from kdlib.layers.frequency_mask import full_l1


def share(gains: Any, width: int, twice: Any = None) -> Any:
    """The right answer, or with columns counted in another way."""
    columns = torch.full((gains.shape[-1],), 2.0)
    columns[0] = 1
    if width % 2 == 0:
        columns[-1] = 1
    columns = columns if twice is None else twice(columns)
    count = gains[0, :, :, 0].numel() * columns.sum()
    return (gains * columns).sum((1, 2, 3)) ** 2 / (count * (gains**2 * columns).sum((1, 2, 3)))


def all_but_first(columns: Any) -> Any:
    return torch.where(torch.arange(len(columns)) == 0, 1.0, 2.0)


def size(gains: Any, width: int) -> int:
    return gains[0, :, :, 0].numel() * width


CASES: list[tuple[str, Any, str]] = [
    ("open_share", None, "not answered yet"),
    ("open_share", lambda gains, width: None, "not answered yet"),
    ("open_share", share, "right: masks that halve everything are open to 100%"),
    ("open_share", lambda gains, width: share(gains, width).mean(), "not yet: expected one share per image"),
    ("open_share", lambda g, width: full_l1(g, width) / size(g, width), "not yet: width 6: half the gains"),
    ("open_share", lambda g, width: share(g, width, torch.ones_like), "not yet: width 6: every column counts once"),
    ("open_share", lambda g, width: share(g, width, all_but_first), "not yet: width 6: all columns but the first"),
    ("open_share", lambda g, width: share(g, 6), "not yet: width 5: "),
    ("open_share", lambda g, width: share(g, width) * size(g, width), "not yet: width 6: this is the number"),
    ("open_share", lambda g, width: 1 / share(g, width), "not yet: width 6: this is one over"),
    ("open_share", lambda g, width: share(g, width).sqrt(), "not yet: width 6: this is the root"),
    ("open_share", lambda g, width: share(g, width).square(), "not yet: width 6: 0."),
]


@pytest.mark.parametrize(("name", "answer", "start"), CASES)
def test_a_checker_judges_the_answer(name: str, answer: Any, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    getattr(checks, name)(answer)
    out = capsys.readouterr().out
    assert out.startswith(start) and out.count("\n") == 1


def test_own_masks_have_a_score_to_beat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = {"bottle": tiny.data(tmp_path).test}
    model = tiny.build("dnpkd").eval()
    perfect = kd.evaluate(model, sets["bottle"], device="cpu")
    perfect.kept_maps[:] = perfect.masks
    blind = replace(perfect, kept_maps=1 - perfect.maps)
    checks.own_masks(None, sets, {"bottle": perfect}, 4)
    checks.own_masks(tiny.build("rd"), sets, {"bottle": blind}, 4)
    checks.own_masks(model, sets, {"bottle": blind}, 3)
    checks.own_masks(model, sets, {"bottle": perfect}, 4)
    checks.own_masks(model, sets, {"bottle": blind}, 4)
    starts = [
        "not answered yet",
        "not yet: the method is rd",
        "not yet: trained for 4",
        "not yet: AUPRO",
        "right: AUPRO",
    ]
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 5
