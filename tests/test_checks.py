"""The checkers of the exercises: a right answer, wrong ones, and none."""

from __future__ import annotations

from typing import Any

import pytest

from kdlib import checks

CASES: list[tuple[str, Any, str]] = [
    ("level_weights", None, "not answered yet"),
    ("level_weights", (1, None, None), "not answered yet"),
    ("level_weights", (1, 4, 16), "right"),
    ("level_weights", (0.25, 1, 4), "right"),
    ("level_weights", (1, 2, 4), "not yet"),
    ("level_weights", (16, 4, 1), "not yet"),
    ("level_weights", (1, 4), "not yet"),
    ("rank_pixels", None, "not answered yet"),
    ("rank_pixels", {"sum": "A", "product": "B", "C": None}, "not answered yet"),
    ("rank_pixels", {"sum": "A", "product": "B", "C": (0.4, 0.4)}, "right"),
    ("rank_pixels", {"sum": "A", "product": "B", "C": (0.6, 0.2)}, "right"),
    ("rank_pixels", {"sum": "A", "product": "B", "C": (0.8, 0.1)}, "not yet: C has"),
    ("rank_pixels", {"sum": "A", "product": "B", "C": 0.4}, "not yet: C is a pair"),
    ("rank_pixels", {"sum": "B", "product": "B", "C": (0.4, 0.4)}, "not yet: write out the sum"),
    ("rank_pixels", {"sum": "A", "product": "A", "C": (0.4, 0.4)}, "not yet: write out the product"),
    ("distance_bounds", None, "not answered yet"),
    ("distance_bounds", (2, 1), "right"),
    ("distance_bounds", (4, 2), "not yet: 4 for any features: no pair"),
    ("distance_bounds", (1, 1), "not yet: 1 for any features: distances above"),
    ("distance_bounds", (2, 2), "not yet: 2 for features after ReLU"),
    ("distance_bounds", 2, "not yet: expected two numbers"),
    ("opposite_losses", {"teacher": None, "student": None}, "not answered yet"),
    ("opposite_losses", {"teacher": [(10, 0), (0, 1)], "student": [(1, 0), (0, 10)]}, "right: global 0.802"),
    ("opposite_losses", {"teacher": [(10, 0), (1, 0)], "student": [(10, 0), (0, 1)]}, "not yet: global 0.010"),
    ("opposite_losses", {"teacher": [(1, 0), (0, 1)], "student": [(5, 0), (0, 5)]}, "not yet: global 0.000"),
    ("opposite_losses", {"teacher": [(1, 0), (0, 0)], "student": [(5, 0), (0, 5)]}, "not yet: expected two"),
    ("opposite_losses", {"teacher": [1, 0], "student": [5, 0]}, "not yet: expected two"),
    ("rd_parameters", {"MFF": None, "OCE": None, "decoder": None}, "not answered yet"),
    ("rd_parameters", {"MFF": 0.66, "OCE": 11.02, "decoder": 3.70}, "right: together 15.4"),
    ("rd_parameters", {"MFF": 0.66, "OCE": 11.02, "decoder": 4.70}, "not yet: 4.7 million is too many for decoder"),
    ("rd_parameters", {"MFF": 0.3, "OCE": 11.02, "decoder": 3.70}, "not yet: 0.3 million is too few for MFF"),
    ("rd_parameters", {"MFF": 0.66}, "not yet: 0 million is too few for OCE"),
    ("embedding_shapes", {256: None, 224: None}, "not answered yet"),
    ("embedding_shapes", {256: (512, 8, 8), 224: (512, 7, 7)}, "right"),
    ("embedding_shapes", {256: (512, 8, 8), 224: [512, 7, 7]}, "right"),
    ("embedding_shapes", {256: (256, 16, 16), 224: (512, 7, 7)}, "not yet: (256, 16, 16) for 256 px"),
    ("embedding_shapes", {256: (512, 8, 8), 224: 7}, "not yet: 7 for 224 px"),
]


@pytest.mark.parametrize(("name", "answer", "said"), CASES)
def test_a_checker_judges_the_answer(name: str, answer: Any, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    getattr(checks, name)(answer)
    out = capsys.readouterr().out
    assert out.startswith(said) and out.count("\n") == 1
