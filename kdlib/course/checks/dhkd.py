"""Checkers of notebook 05_dhkd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kdlib.course.checks.answers import answered, numbers_right


def flow_bounds(answer: Mapping[str, float] | None) -> None:
    """Notebook 05: the largest log-scale of a channel in one coupling, and in four double blocks."""
    if not answered(answer):
        return
    one = 0.636 * 1.9 * np.pi / 2
    true = {"one coupling": one, "four blocks": 4 * one}
    if numbers_right(answer, true, "how large can an arctangent be, and how do logs combine?", relative=0.02):
        print("right: bounded, but e to that power is a factor of about 2,000 per channel: room for learning by heart")


def fresh_flow(answer: Mapping[str, float] | None) -> None:
    """Notebook 05: log-determinant and loss of a fresh flow on 64 standardised channels."""
    if not answered(answer):
        return
    true = {"log-determinant": 0, "per position": 32, "per channel": 0.5}
    if numbers_right(answer, true, "a fresh flow permutes, each channel has variance 1", absolute=0.01):
        print(
            "right: a loss that starts elsewhere says that the features are not standardised or the gains are not zero"
        )


def printed_means(answer: Sequence[str] | None, columns: Mapping[str, Sequence[float]]) -> None:
    """Notebook 05: the columns of a table whose mean is not the average that is printed as their last number."""
    if not answered(answer):
        return
    true = {name for name, (*each, printed) in columns.items() if abs(np.mean(each) - printed) > 0.05}
    if unknown := sorted(set(answer) - set(columns)):
        print(f"not yet: there are no columns {unknown}")
    elif wrong := sorted(set(answer) - true):
        print(f"not yet: {wrong[0]} agrees with its printed average")
    elif left := true - set(answer):
        print(f"not yet: these are right, and {len(left)} more do not agree")
    else:
        print(f"right: {len(true)} of {len(columns)} averages cannot be recomputed from the rows above them")
