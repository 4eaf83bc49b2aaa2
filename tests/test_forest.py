"""The forest plot of the ledger: every measured line is drawn, undecided ones hollow."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from kdlib.course.claims import COLUMNS, LEDGER
from kdlib.course.forest import forest

LINE = dict.fromkeys(COLUMNS, "") | {
    "paper": "SNL",
    "claim": "a claim",
    "data": "real",
    "metric": "aupro",
    "seeds": "3",
}
HOLDS = LINE | {"mean": "+0.0200", "spread": "0.0100", "verdict": "holds here", "condition": "made for it"}
UNDECIDED = LINE | {"mean": "-0.0010", "spread": "0.0300", "verdict": "undecided here", "metric": "image_auroc"}
TOO_FEW = LINE | {"mean": "+0.0050", "seeds": "1", "verdict": "too few seeds", "metric": "pixel_auroc"}
OTHER = HOLDS | {"paper": "DHKD"}
UNMEASURED = LINE | {"metric": "pixel_auroc", "verdict": "not measured"}


def written(folder: Path, *lines: dict[str, str]) -> Path:
    pd.DataFrame(lines, columns=COLUMNS).to_csv(folder / LEDGER, index=False)
    return folder


def test_gains_stand_at_their_place_and_undecided_ones_are_hollow(tmp_path: Path) -> None:
    figure = forest(written(tmp_path, HOLDS, UNDECIDED, TOO_FEW, OTHER, UNMEASURED), "SNL")
    (axis,) = figure.axes
    marks = {
        line.get_xdata()[0]: line.get_markerfacecolor() for line in axis.lines if line.get_marker() in tuple("os^")
    }
    assert {gain for gain, face in marks.items() if face == "white"} == {-0.001, 0.005} and set(marks) >= {0.02}
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["a claim · real (made for it)", "a claim · real"]
    assert "a claim, real, aupro: +0.0200, holds here" in figure.get_label()
    plt.close(figure)


def test_without_a_line_to_draw_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no"):
        forest(tmp_path, "SNL")
    with pytest.raises(ValueError, match="no measured claim of 'SNL'"):
        forest(written(tmp_path, UNMEASURED, OTHER), "SNL")


def test_two_papers_share_a_plot(tmp_path: Path) -> None:
    figure = forest(str(written(tmp_path, HOLDS, OTHER | {"claim": "another"})), "SNL", "DHKD")
    assert [label.get_text().split(" · ")[0] for label in figure.axes[0].get_yticklabels()] == ["a claim", "another"]
    assert figure.get_label().startswith("Forest plot of the claims of SNL and DHKD.")
    plt.close(figure)
