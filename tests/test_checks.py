"""The checkers of the exercises: a right answer, wrong ones, and none."""

from __future__ import annotations

from dataclasses import replace
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


def single(x: Any, subnet: Any, reverse: bool = False) -> Any:
    """An affine coupling of the second half of the channels."""
    x1, x2 = x.chunk(2, 1)
    s, t = subnet(x1)
    if reverse:
        return torch.cat([x1, (x2 - t) * (-s).exp()], 1), -s.sum(1)
    return torch.cat([x1, s.exp() * x2 + t], 1), s.sum(1)


def second(formula: Any) -> Any:
    """A coupling with another formula for the second half."""

    def wrong(x: Any, subnet: Any, reverse: bool = False) -> Any:
        x1, x2 = x.chunk(2, 1)
        return torch.cat([x1, formula(x2, *subnet(x1))], 1), torch.zeros(len(x), 2, 3)

    return wrong


def volume(change: Any) -> Any:
    """A coupling with other log-determinants."""

    def wrong(x: Any, subnet: Any, reverse: bool = False) -> Any:
        y, log_det = single(x, subnet, reverse)
        return y, change(log_det, subnet(x[:, :2])[0])

    return wrong


def backward(formula: Any, sign: int = -1) -> Any:
    """A coupling with another way back."""

    def wrong(x: Any, subnet: Any, reverse: bool = False) -> Any:
        x1, x2 = x.chunk(2, 1)
        s, t = subnet(x1)
        return (torch.cat([x1, formula(x2, s, t)], 1), sign * s.sum(1)) if reverse else single(x, subnet)

    return wrong


def denoising(see: Any, ask: Any = None, difference: Any = lambda z, s: (z - s).pow(2).mean()) -> Any:
    """A student's loss: what the student sees, what the teacher is asked, and how they are compared."""

    def loss(teacher: Any, student: Any, f: Any, strength: float) -> Any:
        with torch.no_grad():
            target = teacher(f if ask is None else ask(f, strength))
        return difference(target, student(see(f, strength)))

    return loss


def noisy(f: Any, strength: float) -> Any:
    return f + strength * torch.randn_like(f)


def learning_teacher(teacher: Any, student: Any, f: Any, strength: float) -> Any:
    return (teacher(f) - student(noisy(f, strength))).pow(2).mean()


def in_place(teacher: Any, student: Any, f: Any, strength: float) -> Any:
    target = teacher(f).detach()
    f += strength * torch.randn_like(f)
    return (target - student(f)).pow(2).mean()


def pairwise(
    of: Any = lambda m: m[~torch.eye(len(m), dtype=torch.bool)].mean(), unit: bool = True, power: int = 2
) -> Any:
    """A loss over pairs of images from their mean differences [B, B]."""

    def loss(t: Any, s: Any) -> Any:
        products = []
        for f in (t, s):
            u = torch.nn.functional.normalize(f, dim=1) if unit else f
            products.append(torch.einsum("icp,jcq->ijpq", u.flatten(2), u.flatten(2)))
        return of((products[0] - products[1]).abs().pow(power).mean((2, 3)))

    return loss


def shares(
    x: Any, centres: Any, scales: Any, dim: int = 1, sign: int = -1, factor: float = 2.0, own: float = 1.0
) -> Any:
    """CRAM's shares from a matrix product."""
    squares = own * x.square().sum(1, keepdim=True) - factor * x @ centres.T + centres.square().sum(1)
    return torch.softmax(sign * scales * squares, dim)


def differences(x: Any, centres: Any) -> Any:
    return (x[:, None] - centres).square().sum(2)


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
    ("one_threshold", {"A": None, "B": None}, "not answered yet"),
    ("one_threshold", {"A": (1, 2), "B": (5, 9)}, "right: mean 1, pooled 0.75"),
    ("one_threshold", {"A": (1, 4), "B": (2, 9)}, "not yet: mean 1, pooled 1.00"),
    ("one_threshold", {"A": (1, 2), "B": (5, 4)}, "not yet: A and B are pairs"),
    ("one_threshold", {"A": (1, 2)}, "not yet: A and B are pairs"),
    ("even_part", None, "not answered yet"),
    ("even_part", even, "right: 5"),
    ("even_part", lambda x: (x + x.flip(-2, -1)) / 2, "not yet: nearly"),
    ("even_part", lambda x: x, "not yet: largest error"),
    ("even_part", lambda x: x[0], "not yet: expected shape"),
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
    ("flow_bounds", {"one coupling": None, "four blocks": None}, "not answered yet"),
    ("flow_bounds", {"one coupling": 1.898, "four blocks": 7.59}, "right"),
    ("flow_bounds", {"one coupling": 1.898, "four blocks": 1.898**4}, "not yet: 12"),
    ("single_coupling", None, "not answered yet"),
    ("single_coupling", lambda x, subnet, reverse=False: None, "not answered yet"),
    ("single_coupling", lambda x, subnet, reverse=False: (x, None), "not answered yet"),
    ("single_coupling", single, "right"),
    ("single_coupling", lambda x, subnet, reverse=False: x, "not yet: expected a pair"),
    ("single_coupling", lambda x, subnet, reverse=False: single(x.flip(1), subnet), "not yet: the first half"),
    ("single_coupling", second(lambda x, s, t: x), "not yet: nothing has changed"),
    ("single_coupling", second(lambda x, s, t: x + t), "not yet: the log-scale"),
    ("single_coupling", second(lambda x, s, t: s.exp() * x), "not yet: the shift is not used"),
    ("single_coupling", second(lambda x, s, t: s * x + t), "not yet: this scales by s"),
    ("single_coupling", second(lambda x, s, t: (-s).exp() * x + t), "not yet: this divides"),
    ("single_coupling", second(lambda x, s, t: s.exp() * (x + t)), "not yet: this scales the shift"),
    ("single_coupling", second(lambda x, s, t: s.exp() * x - t), "not yet: the second half should be"),
    ("single_coupling", volume(lambda log_det, s: s), "not yet: expected one log-determinant per position"),
    ("single_coupling", volume(lambda log_det, s: log_det.sum()), "not yet: expected one log-determinant per position"),
    ("single_coupling", volume(lambda log_det, s: -log_det), "not yet: the log-determinant has the wrong sign"),
    ("single_coupling", volume(lambda log_det, s: log_det.exp()), "not yet: this is the determinant"),
    ("single_coupling", volume(lambda log_det, s: log_det / 2), "not yet: this is the mean"),
    ("single_coupling", volume(lambda log_det, s: 0 * log_det), "not yet: the log-determinant is 0"),
    ("single_coupling", volume(lambda log_det, s: log_det + 1), "not yet: the log-determinant is off by up to 1.00"),
    ("single_coupling", lambda x, subnet, reverse=False: None if reverse else single(x, subnet), "not yet: forwards"),
    ("single_coupling", lambda x, subnet, reverse=False: single(x, subnet), "not yet: forwards is right; `reverse`"),
    ("single_coupling", backward(lambda y, s, t: y), "not yet: forwards is right; backwards, y comes"),
    ("single_coupling", backward(lambda y, s, t: y * (-s).exp() - t), "not yet: forwards is right; backwards, undo"),
    ("single_coupling", backward(lambda y, s, t: y + 9), "not yet: forwards is right; the way back misses x"),
    ("single_coupling", backward(lambda y, s, t: (y - t) * (-s).exp(), 1), "not yet: x comes back"),
    ("denoising_loss", None, "not answered yet"),
    ("denoising_loss", lambda teacher, student, f, strength: None, "not answered yet"),
    ("denoising_loss", denoising(noisy), "right"),
    ("denoising_loss", denoising(noisy, difference=torch.nn.functional.mse_loss), "right"),
    ("denoising_loss", denoising(noisy, difference=lambda z, s: (z - s).pow(2)), "not yet: expected one number"),
    ("denoising_loss", in_place, "not yet: f itself has changed"),
    ("denoising_loss", denoising(noisy, noisy), "not yet: the teacher should be asked"),
    ("denoising_loss", denoising(lambda f, strength: f), "not yet: the student should see f with noise"),
    ("denoising_loss", denoising(lambda f, strength: f + strength * torch.randn(f[:1].shape)), "not yet: all images"),
    ("denoising_loss", denoising(lambda f, strength: f + strength * torch.randn(f[:, :1].shape)), "not yet: all chan"),
    ("denoising_loss", denoising(lambda f, strength: f + strength * torch.randn(16, 8, 1, 1)), "not yet: all rows"),
    (
        "denoising_loss",
        denoising(lambda f, strength: f + strength * torch.rand_like(f)),
        "not yet: the noise has the m",
    ),
    ("denoising_loss", denoising(lambda f, strength: noisy(f, strength**2)), "not yet: the noise has the standard"),
    ("denoising_loss", denoising(lambda f, strength: f + f * noisy(0 * f, strength)), "not yet: the noise has the st"),
    (
        "denoising_loss",
        denoising(noisy, difference=lambda z, s: (z - s.detach()).pow(2).mean()),
        "not yet: no gradient",
    ),
    ("denoising_loss", learning_teacher, "not yet: a gradient reaches the teacher"),
    ("denoising_loss", denoising(noisy, difference=lambda z, s: (z - s).pow(2).sum()), "not yet: this is the sum"),
    (
        "denoising_loss",
        denoising(noisy, difference=lambda z, s: (z - s).pow(2).mean().sqrt()),
        "not yet: this is the root",
    ),
    ("denoising_loss", denoising(noisy, difference=lambda z, s: (z - s).abs().mean()), "not yet: these are absolute"),
    ("denoising_loss", denoising(noisy, difference=lambda z, s: (z - s).pow(2).sum(1).mean()), "not yet: these are sq"),
    ("denoising_loss", denoising(noisy, difference=lambda z, s: 3 * (z - s).pow(2).mean()), "not yet: the loss is"),
    ("all_pairs", None, "not answered yet"),
    ("all_pairs", lambda t, s: None, "not answered yet"),
    ("all_pairs", pairwise(), "right"),
    ("all_pairs", pairwise(lambda m: m), "not yet: expected one number"),
    ("all_pairs", pairwise(lambda m: m.mean()), "not yet: the pairs of an image with itself are in"),
    ("all_pairs", pairwise(lambda m: (m - m.diag().diag()).mean()), "not yet: an image's pair"),
    ("all_pairs", kd.losses.intra_affinity, "not yet: these are the pairs of an image with itself alone"),
    ("all_pairs", kd.losses.inter_affinity, "not yet: these are neighbours"),
    ("all_pairs", pairwise(lambda m: m.sum() - m.diag().sum()), "not yet: this is a sum over pairs"),
    ("all_pairs", pairwise(unit=False), "not yet: these are products"),
    ("all_pairs", pairwise(power=1), "not yet: these are absolute"),
    ("all_pairs", pairwise(lambda m: m.amax()), "not yet: 0."),
    ("all_pairs", lambda t, s: pairwise()(t, s.detach()), "not yet: the value is right, but no gradient"),
    ("soft_shares", None, "not answered yet"),
    ("soft_shares", lambda x, centres, scales: None, "not answered yet"),
    ("soft_shares", shares, "right"),
    ("soft_shares", lambda x, centres, scales: torch.softmax(-scales * torch.cdist(x, centres) ** 2, 1), "right"),
    ("soft_shares", lambda x, centres, scales: shares(x, centres, scales).T, "not yet: expected shares [n, K]"),
    ("soft_shares", lambda x, centres, scales: shares(x, centres, scales, sign=1), "not yet: the farthest"),
    (
        "soft_shares",
        lambda x, centres, scales: shares(x, centres, scales, dim=0),
        "not yet: shares sum to 1 over the t",
    ),
    ("soft_shares", lambda x, centres, scales: shares(x, centres, 1), "not yet: the scales are not used"),
    (
        "soft_shares",
        lambda x, centres, scales: torch.softmax(-scales * torch.cdist(x, centres), 1),
        "not yet: these are d",
    ),
    (
        "soft_shares",
        lambda x, centres, scales: torch.exp(-scales * differences(x, centres)),
        "not yet: shares of a token",
    ),
    ("soft_shares", lambda x, centres, scales: shares(x, centres, scales, own=0), "not yet: |x|² does not cancel"),
    ("soft_shares", lambda x, centres, scales: shares(x, centres, scales, factor=1), "not yet: mind the factor 2"),
    ("soft_shares", lambda x, centres, scales: shares(x, centres, 2 * scales), "not yet: these are not the shares"),
    (
        "soft_shares",
        lambda x, centres, scales: torch.softmax(-scales * differences(x, centres), 1),
        "not yet: right, but",
    ),
    (
        "soft_shares",
        lambda x, c, scales: (e := torch.exp(-scales * torch.cdist(x, c) ** 2)) / e.sum(1, keepdim=True),
        "not yet: right for near tokens",
    ),
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


def test_maps_of_a_density_are_compared_by_region(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tiny.data(tmp_path, size=32).test
    to_beat = kd.evaluate(Darkness(), images, device="cpu", precision="fp32")
    for answer in (None, to_beat.masks + 0.0, to_beat.maps, to_beat.maps[1:]):
        checks.own_latent_maps(answer, to_beat)
    starts = ["not answered yet", "right: AUPRO 1.000 (to beat: ", "not yet: AUPRO", "not yet: expected finite"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 4


def test_own_weights_are_trained_only_if_they_are_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to_beat = kd.evaluate(Darkness(), tiny.data(tmp_path, size=32).test, device="cpu", precision="fp32")
    perfect = replace(to_beat, kept_maps=to_beat.masks.astype(np.float32))
    asked: list[Any] = []

    def train(weights: Any) -> Any:
        asked.append(weights)
        return perfect if weights["channel"] < 1 else to_beat

    answers: list[dict[str, Any] | None] = [None, {"spatial": None}, {"cosine": 1}, {"intra": -1}, {"spatial": 2}]
    for answer in (*answers, {"spatial": 1, "channel": 1}, {"spatial": 1, "inter": 0.5}):
        checks.own_weights(answer, train, to_beat)
    starts = ["not answered yet"] * 2 + ["not yet: there is no loss 'cosine'", "not yet: {", "not yet: only `spatial`"]
    lines = capsys.readouterr().out.splitlines()
    starts += ["not yet: AUPRO", "right: AUPRO 1.000"]
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 7
    assert asked[1] == {"spatial": 1, "channel": 0, "intra": 0, "inter": 0.5}


def test_printed_means(capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"a": (1.0, 2.0, 1.5), "b": (1.0, 2.0, 1.7), "c": (3.0, 3.0, 2.0)}
    answers: list[list[str] | None] = [None, ["b", "c"], ["b"], ["a", "b"], ["d"]]
    for answer in answers:
        checks.printed_means(answer, columns)
    starts = ["not answered yet", "right: 2 of 3", "not yet: these are right", "not yet: a agrees", "not yet: there"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 5
