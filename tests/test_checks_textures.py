"""The checkers of notebook 10's exercises: a right answer, typical wrong ones, and none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scipy.ndimage import gaussian_filter, gaussian_filter1d

import kdlib as kd
from kdlib.course import checks

NUMBERS = {"share": 1 / 64, "gain": 0.25, "sum": "a", "product": "b"}


def gains(height: int, width: int, cutoff: float, power: int = 4) -> Any:
    r = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None])
    return 1 / (1 + (r / cutoff) ** power)


def in_bins(height: int, width: int, cutoff: float) -> Any:
    down, across = torch.fft.fftfreq(height)[:, None] * height, torch.fft.fftfreq(width)[None] * width
    return 1 / (1 + (torch.hypot(down, across) / cutoff) ** 4)


def rows(maps: Any, sigma: float) -> Any:
    """The published code: one map alone is squeezed, and a loop runs over its rows."""
    return np.stack([gaussian_filter1d(m, sigma, axis=-1) for m in maps])


CASES: list[tuple[str, Any, str]] = [
    ("texture_numbers", {"share": None, "gain": None, "sum": None, "product": None}, "not answered yet"),
    ("texture_numbers", NUMBERS, "right: a sum believes"),
    ("texture_numbers", NUMBERS | {"share": 1 / 8}, "not yet: 0.125 for 'share'"),
    ("texture_numbers", NUMBERS | {"gain": 0.5}, "not yet: 0.5 for 'gain'"),
    ("texture_numbers", NUMBERS | {"product": "a"}, "not yet: 'a' for 'product'"),
    ("any_shape_gains", None, "not answered yet"),
    ("any_shape_gains", lambda h, w, c: None, "not answered yet"),
    ("any_shape_gains", gains, "right: gain 1"),
    ("any_shape_gains", lambda h, w, c: gains(w, h, c), "not yet: expected gains (6, 10)"),
    ("any_shape_gains", lambda h, w, c: torch.fft.fftshift(gains(h, w, c)), "not yet: 8 x 8: the zero frequency is in"),
    ("any_shape_gains", in_bins, "not yet: 8 x 8: r is counted in bins"),
    ("any_shape_gains", lambda h, w, c: gains(h, w, c, 2), "not yet: 8 x 8: the gain falls too slowly"),
    ("any_shape_gains", lambda h, w, c: gains(h, w, c) ** 2, "not yet: 8 x 8: these are the gains of two passes"),
    ("any_shape_gains", lambda h, w, c: 1 - gains(h, w, c), "not yet: 8 x 8: what is kept"),
    (
        "any_shape_gains",
        lambda h, w, c: 0.9 * gains(h, w, c),
        "not yet: 8 x 8: the gain of the zero frequency is 0.900",
    ),
    ("blur_of_each", None, "not answered yet"),
    ("blur_of_each", lambda m, s: None, "not answered yet"),
    ("blur_of_each", lambda m, s: gaussian_filter(m, (0, s, s)), "right: a spot"),
    ("blur_of_each", lambda m, s: gaussian_filter(m, s, axes=(1, 2)), "right: a spot"),
    ("blur_of_each", lambda m, s: m, "not yet: 1 map(s): the maps are as before"),
    ("blur_of_each", rows, "not yet: 1 map(s): one direction only: this is the published"),
    ("blur_of_each", lambda m, s: gaussian_filter1d(m, s, axis=1), "not yet: 1 map(s): one direction only, and not"),
    ("blur_of_each", lambda m, s: gaussian_filter(m, s), "not yet: 3 map(s): neighbours"),
    ("blur_of_each", lambda m, s: gaussian_filter(m[0], s), "not yet: expected maps (1, 24, 32)"),
    ("blur_of_each", lambda m, s: gaussian_filter(m, (0, 2 * s, s)), "not yet: 1 map(s): the spot has another form"),
]


@pytest.mark.parametrize(("name", "answer", "start"), CASES)
def test_a_checker_judges_the_answer(name: str, answer: Any, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    getattr(checks, name)(answer)
    out = capsys.readouterr().out
    assert out.startswith(start) and out.count("\n") == 1


def test_own_restorer_has_a_score_to_beat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = {"bottle": tiny.data(tmp_path).test}
    model = tiny.build("singlenet").eval()
    perfect = kd.evaluate(model, sets["bottle"], device="cpu")
    perfect.kept_maps[:] = perfect.masks
    blind = replace(perfect, kept_maps=1 - perfect.maps)
    checks.own_restorer(None, sets, {"bottle": perfect}, 4)
    checks.own_restorer(tiny.build("stpm"), sets, {"bottle": blind}, 4)
    checks.own_restorer(model, sets, {"bottle": blind}, 3)
    checks.own_restorer(model, sets, {"bottle": perfect}, 4)
    checks.own_restorer(model, sets, {"bottle": blind}, 4)
    starts = [
        "not answered yet",
        "not yet: the method is stpm",
        "not yet: trained for 4",
        "not yet: AUPRO",
        "right: AUPRO",
    ]
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 5
