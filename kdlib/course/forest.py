"""The ledger as a forest plot: one line per claim and image set, one mark per metric, zero in the middle."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kdlib import viz
from kdlib.course.claims import written
from kdlib.lettering import lettered

_MARKS = {
    "image_auroc": ("image AUROC", "o", viz.NORMAL, -0.22),
    "pixel_auroc": ("pixel AUROC", "s", viz.ANOMALOUS, 0.0),
    "aupro": ("AUPRO", "^", viz.CHOSEN, 0.22),
}
_DECIDED = ("holds here", "does not hold here")


@lettered
def forest(results: str | Path, *papers: str) -> Figure:
    """The lines of these papers: mean gain over seeds, with its standard deviation as a bar.

    Filled marks are decided by the rule of the ledger, hollow ones are not; right of zero the claim holds.

    Raises:
        ValueError: If the ledger is missing or damaged, or has no measured line of these papers.
    """
    measured = [row for row in written(Path(results)).to_dict("records") if row["mean"]]
    rows = [row for row in measured if row["paper"] in papers]
    named = " and ".join(papers)
    if not rows:
        raise ValueError(f"the ledger has no measured claim of '{named}'; `python -m kdlib claims` writes it")
    groups = list(dict.fromkeys((row["claim"], row["data"], row["condition"]) for row in rows))
    figure, axis = plt.subplots(figsize=(9, 0.62 * len(groups) + 1.2), layout="constrained")
    axis.axvline(0, color="0.6", linewidth=1)
    for row in rows:
        _mark(axis, groups.index((row["claim"], row["data"], row["condition"])), row)
    axis.set_yticks(range(len(groups)), [_words(*group) for group in groups], fontsize=8.5)
    axis.set(ylim=(len(groups) - 0.5, -0.5), xlabel="gain, mean and standard deviation over seeds")
    axis.grid(axis="y", color="0.93")
    kinds = [Line2D([], [], color=c, marker=m, linestyle="none", label=name) for name, m, c, _ in _MARKS.values()]
    hollow = Line2D([], [], color="0.3", marker="o", markerfacecolor="white", linestyle="none", label="undecided")
    figure.legend(handles=[*kinds, hollow], loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    told = (f"{row['claim']}, {row['data']}, {row['metric']}: {row['mean']}, {row['verdict']}" for row in rows)
    figure.set_label(f"Forest plot of the claims of {named}. " + "; ".join(told))
    return figure


def _mark(axis: Axes, line: int, row: dict[str, str]) -> None:
    _, marker, colour, offset = _MARKS[row["metric"]]
    face = colour if row["verdict"] in _DECIDED else "white"
    spread = float(row["spread"] or 0)
    style = {"color": colour, "marker": marker, "markerfacecolor": face, "markersize": 6}
    axis.errorbar(float(row["mean"]), line + offset, xerr=spread, capsize=2, linewidth=1, **style)  # type: ignore[arg-type]


def _words(claim: str, data: str, condition: str) -> str:
    return fill(f"{claim} · {data}" + (f" ({condition})" if condition else ""), 62)
