"""The checkers of the exercises: a right answer, wrong ones, and none."""

from __future__ import annotations

from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scipy import ndimage

import kdlib as kd
from kdlib import metrics
from kdlib.course import checks
from kdlib.scoring.calibration import threshold


def sampled(maps: Any, masks: Any) -> float:
    """AUPRO as many public codes compute it."""
    labelled = [ndimage.label(mask) for mask in masks]
    regions = [(i, labels == k) for i, (labels, count) in enumerate(labelled) for k in range(1, count + 1)]
    thresholds = np.linspace(maps.max(), maps.min(), 200)
    fpr = np.array([(maps > t)[~masks].mean() for t in thresholds])
    pro = np.array([np.mean([(maps[i] > t)[region].mean() for i, region in regions]) for t in thresholds])
    inside = np.linspace(0, 0.3, 301)
    return float(np.interp(inside, fpr, pro).mean())


def nearest(memory: Any, t: Any) -> Any:
    """Distance of each feature to the nearest of a memory."""
    return torch.cdist(t.flatten(1).T, memory).amin(1).view(t.shape[1:])


class Darkness:
    """Maps that know nothing."""

    def anomaly_map(self, x: torch.Tensor) -> torch.Tensor:
        return 1 - x.mean(1, keepdim=True)

    def image_score(self, amap: torch.Tensor) -> torch.Tensor:
        return amap.flatten(1).amax(1)


def distance(t: Any, s: Any) -> Any:
    return kd.losses.cosine_distance(t, s.detach())


def limit(t: Any, s: Any, easy: float) -> Any:
    """The largest distance among the share `easy` of the smallest."""
    flat = distance(t, s).flatten()
    return flat.kthvalue(round(easy * len(flat))).values


def shrunk(s: Any, where: Any, factor: float = 0.1) -> Any:
    """The same features with other gradients at some positions."""
    return s.detach() + torch.where(where, factor, 1.0)[:, None] * (s - s.detach())


def pairs(t: Any, s: Any) -> Any:
    """One image at a time."""
    return zip(t.split(1), s.split(1), strict=True)


def even(x: Any) -> Any:
    return (x + x.flip(-2, -1).roll((1, 1), (-2, -1))) / 2


LIMITS = ("one centre", "huge scales", "zero scales", "identity")
BLIND = ("negated", "longer", "every second image negated")
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
    ("hard_mining", None, "not answered yet"),
    ("hard_mining", lambda t, s, easy: None, "not answered yet"),
    ("hard_mining", kd.losses.focused, "right"),
    ("hard_mining", lambda t, s, easy: s[0], "not yet: expected a tensor like s"),
    ("hard_mining", lambda t, s, easy: 0.1 * s, "not yet: the values have changed"),
    ("hard_mining", lambda t, s, easy: s.detach(), "not yet: no gradient"),
    ("hard_mining", lambda t, s, easy: s, "not yet: all gradients are as before"),
    ("hard_mining", lambda t, s, easy: s.detach() + 0.1 * (s - s.detach()), "not yet: all gradients have shrunk"),
    ("hard_mining", lambda t, s, easy: shrunk(s, distance(t, s) > limit(t, s, easy)), "not yet: the hard"),
    ("hard_mining", lambda t, s, easy: shrunk(s, distance(t, s) <= limit(t, s, easy), 0.0), "not yet: the easy"),
    (
        "hard_mining",
        lambda t, s, easy: torch.cat([kd.losses.focused(*p, easy) for p in pairs(t, s)]),
        "not yet: `easy`",
    ),
    ("hard_mining", lambda t, s, easy: kd.losses.focused(t, s, 0.5), "not yet: 50% of the positions"),
    ("hard_mining", lambda t, s, easy: s.detach() + s[:, :1] - s[:, :1].detach(), "not yet: channels"),
    ("own_threshold", None, "not answered yet"),
    ("own_threshold", lambda scores, share: None, "not answered yet"),
    ("own_threshold", lambda scores, share: threshold(scores, share).value, "right"),
    ("own_threshold", np.quantile, "not yet: 95.05 for the scores 1 to 100"),
    ("own_threshold", lambda scores, share: np.sort(scores)[ceil(len(scores) * share) - 1], "not yet: 95"),
    ("own_threshold", lambda scores, share: np.sort(scores)[int((len(scores) + 1) * share) - 1], "not yet: 95"),
    ("own_threshold", lambda scores, share: np.sort(scores)[ceil((len(scores) + 1) * share)], "not yet: 97"),
    ("own_threshold", lambda scores, share: np.sort(scores)[ceil((len(scores) + 1) * share) - 1], "not yet: index"),
    ("own_threshold", lambda scores, share: scores.min(), "not yet: 1 for"),
    ("embedding_shapes", {256: None, 224: None}, "not answered yet"),
    ("embedding_shapes", {256: (512, 8, 8), 224: (512, 7, 7)}, "right"),
    ("embedding_shapes", {256: (512, 8, 8), 224: [512, 7, 7]}, "right"),
    ("embedding_shapes", {256: (256, 16, 16), 224: (512, 7, 7)}, "not yet: (256, 16, 16) for 256 px"),
    ("embedding_shapes", {256: (512, 8, 8), 224: 7}, "not yet: 7 for 224 px"),
    ("one_threshold", {"A": None, "B": None}, "not answered yet"),
    ("one_threshold", {"A": (1, 2), "B": (5, 9)}, "right: mean 1, pooled 0.75"),
    ("one_threshold", {"A": (1, 4), "B": (2, 9)}, "not yet: mean 1, pooled 1.00"),
    ("one_threshold", {"A": (1, 2), "B": (5, 4)}, "not yet: A and B are pairs"),
    ("one_threshold", {"A": (1, 2)}, "not yet: A and B are pairs"),
    ("steps_and_epochs", {"epochs, one category": None, "epochs, six": 33, "steps to be even": 3600}, "not answered"),
    ("steps_and_epochs", {"epochs, one category": 200, "epochs, six": 33.3, "steps to be even": 3600}, "right"),
    ("steps_and_epochs", {"epochs, one category": 200, "epochs, six": 200, "steps to be even": 600}, "not yet: 200"),
    ("even_part", None, "not answered yet"),
    ("even_part", even, "right: 5"),
    ("even_part", lambda x: (x + x.flip(-2, -1)) / 2, "not yet: nearly"),
    ("even_part", lambda x: x, "not yet: largest error"),
    ("even_part", lambda x: x[0], "not yet: expected shape"),
    ("memory_limits", dict.fromkeys(LIMITS), "not answered yet"),
    ("memory_limits", dict(zip(LIMITS, [(0, 0), (0, 0), (2, 0), (1, 0)], strict=True)), "right"),
    (
        "memory_limits",
        dict(zip(LIMITS, [(0, 0), (1, 0), (2, 0), (1, 0)], strict=True)),
        "not yet: (1, 0) for 'huge",
    ),
    ("memory_limits", dict(zip(LIMITS, [0, (0, 0), (2, 0), (1, 0)], strict=True)), "not yet: 0 for 'one"),
    ("blind_spots", dict.fromkeys(BLIND), "not answered yet"),
    (
        "blind_spots",
        dict(zip(BLIND, [("intra", "inter"), ("spatial", "intra", "inter"), ("intra",)], strict=True)),
        "right",
    ),
    ("blind_spots", dict(zip(BLIND, [("intra",), (), ()], strict=True)), "not yet: all that you name is right"),
    (
        "blind_spots",
        dict(zip(BLIND, [("channel",), (), ()], strict=True)),
        "not yet: 'channel' is not zero for 'negated'",
    ),
    ("reductions", {"cwd / vandgnl": None}, "not answered yet"),
    ("reductions", {"cwd / vandgnl": 4096, "entries": 16.8e6, "entries on a grid of 16": 65536}, "right"),
    ("reductions", {"cwd / vandgnl": 64, "entries": 16.8e6, "entries on a grid of 16": 65536}, "not yet: 64 for 'cwd"),
    ("flow_bounds", {"one coupling": None, "four blocks": None}, "not answered yet"),
    ("flow_bounds", {"one coupling": 1.898, "four blocks": 7.59}, "right"),
    ("flow_bounds", {"one coupling": 1.898, "four blocks": 1.898**4}, "not yet: 12"),
    ("fresh_flow", {"log-determinant": 0, "per position": 32, "per channel": 0.5}, "right"),
    ("fresh_flow", {"log-determinant": 0, "per position": 64, "per channel": 1}, "not yet: 64"),
    ("auroc_by_hand", None, "not answered yet"),
    ("auroc_by_hand", 6.5 / 9, "right: 0.722"),
    ("auroc_by_hand", 6 / 9, "not yet: 0.667"),
    ("nearest_distance", None, "not answered yet"),
    ("nearest_distance", nearest, "right: this is `nearest`"),
    ("nearest_distance", lambda m, t: nearest(m, t) ** 2, "not yet: the distances are squared"),
    ("nearest_distance", lambda m, t: nearest(m, t).T, "not yet: expected a tensor [h, w], here (4, 6)"),
    ("nearest_distance", lambda m, t: nearest(m, t) + 1, "not yet: off by up to 1.00"),
    ("nearest_distance", lambda m, t: nearest(m, t.permute(1, 2, 0).reshape(3, 4, 6)), "not yet: off"),
    ("nearest_distance", lambda m, t: nearest(m, t.reshape(-1, 3).T.reshape(3, 4, 6)), "not yet: positions"),
    ("sampled_aupro", None, "not answered yet"),
    ("sampled_aupro", sampled, "right: yours"),
    ("sampled_aupro", metrics.aupro, "not yet: yours"),
    ("sampled_aupro", lambda maps, masks: 0.0, "not yet: yours 0.000"),
    ("harmless_rescalings", {"exp": None, "data set": None, "image": None}, "not answered yet"),
    ("harmless_rescalings", {"exp": True, "data set": True, "image": False}, "right: per image"),
    ("harmless_rescalings", {"exp": True, "data set": True, "image": True}, "not yet: 'image'"),
    ("harmless_rescalings", {"exp": False, "data set": True, "image": False}, "not yet: 'exp'"),
]


@pytest.mark.parametrize(("name", "answer", "start"), CASES)
def test_a_checker_judges_the_answer(name: str, answer: Any, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    getattr(checks, name)(answer)
    out = capsys.readouterr().out
    assert out.startswith(start) and out.count("\n") == 1


def test_own_maps_are_compared_with_a_score_to_beat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tiny.data(tmp_path, size=32).test
    to_beat = kd.evaluate(Darkness(), images, device="cpu", precision="fp32")
    perfect = to_beat.masks + 0.0
    for answer in (None, perfect, to_beat.maps, perfect[:, :8], perfect * np.nan):
        checks.own_maps(answer, to_beat)
    starts = ["not answered yet", "right: image AUROC 1.000", "not yet: image AUROC", "not yet: expected finite"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith(start) for line, start in zip(lines, [*starts, starts[-1]], strict=True)] == [True] * 5


def test_printed_means(capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"a": (1.0, 2.0, 1.5), "b": (1.0, 2.0, 1.7), "c": (3.0, 3.0, 2.0)}
    answers: list[list[str] | None] = [None, ["b", "c"], ["b"], ["a", "b"], ["d"]]
    for answer in answers:
        checks.printed_means(answer, columns)
    starts = ["not answered yet", "right: 2 of 3", "not yet: these are right", "not yet: a agrees", "not yet: there"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 5
