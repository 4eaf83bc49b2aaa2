"""Checkers of the exercises: each computes whether a learner's answer is right, and says so in one line.

They print ``not answered yet``, ``not yet: ...`` with a hint, or ``right: ...`` with what follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from kdlib import losses, methods, metrics
from kdlib.layers.frequency_mask import filtered

_NUMBERS_AT_256 = 256 * 64 * 64 + 512 * 32 * 32 + 1024 * 16 * 16
"""Features of one image of 256 px at the three levels of a wide_resnet50_2."""


def level_weights(answer: Sequence[float] | None) -> None:
    """Notebook 01: what equal errors at 64², 32² and 16² weigh after each map is divided by its number of positions."""
    if _missing(answer):
        return
    given, true = np.asarray(answer, dtype=float), 1 / np.array([64, 32, 16]) ** 2
    if given.shape != (3,) or given.min() <= 0:
        print(f"not yet: expected three positive numbers, the finest level first; found {answer}")
    elif not np.allclose(given / given[0], true / true[0], rtol=1e-3):
        print(
            "not yet: each error is divided by height times width of its own map; which map has the fewest positions?"
        )
    else:
        print("right: the coarsest level speaks 16 times as loud as the finest, although nobody decided that it should")


def rank_pixels(answer: Mapping[str, Any] | None) -> None:
    """Notebook 01: which of two pixels leads under sum and under product, and a third one in between."""
    if _missing(answer):
        return
    assert answer is not None
    pixels = {"A": (0.9, 0.0), "B": (0.3, 0.3)}
    for name, fuse in (("sum", np.sum), ("product", np.prod)):
        if answer.get(name) != max(pixels, key=lambda pixel: float(fuse(pixels[pixel]))):
            print(f"not yet: write out the {name} of A's two distances and that of B's; the larger one leads")
            return
    third = np.asarray(answer.get("C"), dtype=float)
    if third.shape != (2,) or third.min() < 0:
        print(f"not yet: C is a pair of distances, neither below 0; found {answer.get('C')}")
    elif not (np.prod(third) > np.prod(pixels["B"]) and np.sum(third) < np.sum(pixels["A"])):
        print(f"not yet: C has sum {np.sum(third):.3g} and product {np.prod(third):.3g}; one of the two does not fit")
    else:
        print("right: the product asks all levels to agree, the sum is content with one loud level")


def distance_bounds(answer: Sequence[float] | None) -> None:
    """Notebook 01: the largest half squared distance of unit vectors, for any vectors and for those after a ReLU."""
    if _missing(answer):
        return
    given = np.asarray(answer, dtype=float)
    if given.shape != (2,):
        print(f"not yet: expected two numbers; found {answer}")
        return
    e = torch.eye(8)[:, :, None, None]
    random = torch.randn(2, 500, 8, 1, 1, generator=torch.Generator().manual_seed(0))
    cases = {"any features": [(e, -e), tuple(random)], "features after ReLU": [(e, e.roll(1, 0)), tuple(random.relu())]}
    for bound, (name, pairs) in zip(given, cases.items(), strict=True):
        largest = max(float(losses.normalised_l2(t, s).max()) / 2 for t, s in pairs)
        if abs(bound - largest) > 1e-4:
            side = "distances above it exist" if bound < largest else "no pair of vectors comes near it"
            print(f"not yet: {bound:g} for {name}: {side}; the distance is 1 - cos, so how small can cos be?")
            return
    print("right: opposite vectors end the first range, vectors without a common channel the second")


def opposite_losses(answer: Mapping[str, Any] | None) -> None:
    """Notebook 02: features of two positions that only the global cosine tells apart."""
    if _missing(answer):
        return
    assert answer is not None
    t, s = (np.asarray(answer.get(name), dtype=float) for name in ("teacher", "student"))
    if t.shape != (2, 2) or s.shape != (2, 2) or min(np.linalg.norm([*t, *s], axis=1)) == 0:
        print("not yet: expected two positions of two channels each for teacher and student, no vector of length 0")
        return
    pair = [torch.from_numpy(f.T.reshape(1, 2, 1, 2)) for f in (t, s)]
    whole, each = float(losses.global_cosine(*pair)), float(losses.per_position_cosine(*pair))
    found = f"global {whole:.3f}, per position {each:.3f}"
    if each > 0.01:
        print(f"not yet: {found}; a cosine per position is blind to lengths only: keep every direction as it is")
    elif whole < 0.4:
        print(f"not yet: {found}; make the teacher long where the student is short, and the other way round")
    else:
        print(f"right: {found}: the global loss also compares how long the vectors of different positions are")


def rd_parameters(answer: Mapping[str, float] | None) -> None:
    """Notebook 02: millions of trainable numbers in the three parts of RD for a ResNet-18."""
    if _missing(answer):
        return
    assert answer is not None
    model = _outline_of_rd()
    for name, part in (("MFF", "bottleneck.reduce"), ("OCE", "bottleneck.embed"), ("decoder", "decoder")):
        true = sum(p.numel() for p in model.get_submodule(part).parameters()) / 1e6
        given = float(answer.get(name, 0))
        if abs(given - true) > 0.015 * true:
            side = "too few" if given < true else "too many"
            print(f"not yet: {given:g} million is {side} for {name}; k x k x channels in x channels out, 2 c per norm")
            return
    print(f"right: together {sum(map(float, answer.values())):.1f} million, most of them where the image is smallest")


def embedding_shapes(answer: Mapping[int, Sequence[int]] | None) -> None:
    """Notebook 02: shape of RD's embedding for a ResNet-18 and images of some sizes."""
    if _missing(answer):
        return
    assert answer is not None
    model = _outline_of_rd()
    for size, given in answer.items():
        with torch.device("meta"):
            true = tuple(model.bottleneck(model.teach(torch.empty(1, 3, size, size)))[0].shape)  # type: ignore[operator]
        if not isinstance(given, (list, tuple)) or tuple(given) != true:
            print(f"not yet: {given} for {size} px; compare t3: the embedding has twice its channels and half its size")
            return
    print("right: five halvings from the image to the embedding, so a size that 32 does not divide cannot be restored")


def one_threshold(answer: Mapping[str, Sequence[float]] | None) -> None:
    """Notebook 03: two categories, each told apart perfectly, that no common threshold serves."""
    if _missing(answer):
        return
    assert answer is not None
    pairs = np.asarray([answer.get(name, (0, 0)) for name in ("A", "B")], dtype=float)
    if pairs.shape != (2, 2) or (pairs[:, 0] >= pairs[:, 1]).any():
        print("not yet: A and B are pairs (score of a normal image, higher score of a defective one)")
        return
    pooled = metrics.image_metrics(pairs.flatten(), [0, 1, 0, 1])["image_auroc"]
    if pooled > 0.75:
        print(f"not yet: mean 1, pooled {pooled:.2f}; of the four pairs of a normal and a defective image, lose one")
    else:
        print(f"right: mean 1, pooled {pooled:.2f}: a defect of one category ranks below a normal image of the other")


def steps_and_epochs(answer: Mapping[str, float] | None) -> None:
    """Notebook 03: how often 48 images of a category are seen, alone and as one of six, in batches of 16."""
    if _missing(answer):
        return
    assert answer is not None
    true = {"epochs, one category": 600 * 16 / 48, "epochs, six": 600 * 16 / 288, "steps to be even": 600 * 6}
    for name, value in true.items():
        if abs(float(answer.get(name, 0)) - value) > 0.01 * value:
            print(f"not yet: {answer.get(name)} for '{name}'; an epoch is images divided by images per step")
            return
    print("right: at equal steps the joint student saw each image six times less often: say which of the two is equal")


def mixed_masks(answer: Mapping[str, float] | None) -> None:
    """Notebook 03: which share of the pixels is wrong in mixed images, and what that makes of pixel AP by chance."""
    if _missing(answer):
        return
    assert answer is not None
    true = {"mixup": 1, "paste": 1 / 16, "AP by chance": 1 / 32}
    for name, value in true.items():
        if abs(float(answer.get(name, -1)) - value) > 0.02 * value:
            print(f"not yet: {answer.get(name)} for '{name}'; count pixels that no photograph of one product has there")
            return
    print("right: a mixup has no normal pixel left, so it can have an image score, but no pixel AUROC of its own")


def even_part(answer: Callable[[Any], Any] | None) -> None:
    """Notebook 04: what is left of features when their spectrum loses its imaginary part, without a transform."""
    if _missing(answer):
        return
    assert answer is not None
    x = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    open_gains = torch.ones(2, 3, 24, 13)
    true, given = filtered(x, open_gains, "real_only"), torch.as_tensor(answer(x))
    if given.shape != x.shape:
        print(f"not yet: expected shape {tuple(x.shape)}, as that of x; found {tuple(given.shape)}")
    elif torch.allclose(given, (x + x.flip(-2, -1)) / 2, atol=1e-5):
        print("not yet: nearly; index 0 is its own reflection, 1 goes to h - 1: what does flip do to index 0?")
    elif not torch.allclose(given, true, atol=1e-5):
        print(f"not yet: largest error {float((given - true).abs().max()):.2f}; which waves have a real spectrum?")
    else:
        twice = float((filtered(true, open_gains, "real_only") - true).abs().max())
        share = float(true.square().sum() / x.square().sum())
        print(f"right: {share:.0%} of white noise's energy is left, and a second pass changes nothing ({twice:.0e})")


def sparsity_at_start(answer: Mapping[str, float] | None) -> None:
    """Notebook 04: the sparsity term of DNP-KD's code at step 0, for two batch sizes and for more categories."""
    if _missing(answer):
        return
    assert answer is not None
    each = 1e-6 * 0.5 * _NUMBERS_AT_256
    for name, images in {"batch of 8": 8, "batch of 16": 16, "batch of 8, 100 categories": 8}.items():
        if abs(float(answer.get(name, -1)) - images * each) > 0.01 * images * each:
            print(f"not yet: {answer.get(name)} for '{name}'; gains of 0.5, one for each number of t1, t2 and t3")
            return
    print("right: the cosine's three levels are at most 3 for features after a ReLU, so the masks are louder at first")


def mask_parameters(answer: Mapping[str, float] | None) -> None:
    """Notebook 04: millions of numbers in the masks and the predictor of DNP-KD's code."""
    if _missing(answer):
        return
    assert answer is not None
    last = 1024 * 16 * 16
    true = {"masks": 15 * _NUMBERS_AT_256, "predictor": 15 * (last + 1), "masks, 100 categories": 100 * _NUMBERS_AT_256}
    for name, value in true.items():
        given = float(answer.get(name, 0))
        if abs(given - value / 1e6) > 0.01 * value / 1e6:
            print(f"not yet: {given:g} million is too {'few' if given < value / 1e6 else 'many'} for '{name}'")
            return
    print("right: one model for all, but its size still grows with every category, and no mask fits another image size")


def flow_bounds(answer: Mapping[str, float] | None) -> None:
    """Notebook 05: the largest log-scale of a channel in one coupling, and in four double blocks."""
    if _missing(answer):
        return
    assert answer is not None
    one = 0.636 * 1.9 * np.pi / 2
    for name, true in {"one coupling": one, "four blocks": 4 * one}.items():
        if abs(float(answer.get(name, 0)) - true) > 0.02 * true:
            print(f"not yet: {answer.get(name)} for '{name}'; how large can an arctangent be, and how do logs combine?")
            return
    print(
        "right: bounded, but e to that power is a factor of about 2,000 for every channel: room for learning by heart"
    )


def fresh_flow(answer: Mapping[str, float] | None) -> None:
    """Notebook 05: log-determinant and loss of a fresh flow on 64 standardised channels."""
    if _missing(answer):
        return
    assert answer is not None
    for name, true in {"log-determinant": 0, "per position": 32, "per channel": 0.5}.items():
        if abs(float(answer.get(name, -1)) - true) > 0.01:
            print(f"not yet: {answer.get(name)} for '{name}'; a fresh flow permutes, each channel has variance 1")
            return
    print("right: a loss that starts elsewhere says that the features are not standardised or the gains are not zero")


def printed_means(answer: Sequence[str] | None, columns: Mapping[str, Sequence[float]]) -> None:
    """Notebook 05: the columns of a table whose mean is not the average that is printed as their last number."""
    if _missing(answer):
        return
    assert answer is not None
    true = {name for name, (*each, printed) in columns.items() if abs(np.mean(each) - printed) > 0.05}
    if unknown := sorted(set(answer) - set(columns)):
        print(f"not yet: there are no columns {unknown}")
    elif wrong := sorted(set(answer) - true):
        print(f"not yet: {wrong[0]} agrees with its printed average")
    elif left := true - set(answer):
        print(f"not yet: these are right, and {len(left)} more do not agree")
    else:
        print(f"right: {len(true)} of {len(columns)} averages cannot be recomputed from the rows above them")


def memory_limits(answer: Mapping[str, Sequence[float]] | None) -> None:
    """Notebook 06: what CRAM with centres (0, 0) and (4, 0) makes of the token (1, 0) at its limits."""
    if _missing(answer):
        return
    assert answer is not None
    hints = {
        "rho is 0, only (0, 0)": "with one centre its share is 1, whatever the token",
        "rho is 0, huge scales": "huge scales give the nearest centre the whole share",
        "rho is 0, scales of 0": "equal shares make a mean of the centres",
        "rho is the identity": "the shares sum to 1, so sum a (c + x - c) is",
    }
    true = dict(zip(hints, ((0, 0), (0, 0), (2, 0), (1, 0)), strict=True))
    for name, value in true.items():
        given = np.asarray(answer.get(name, ()), dtype=float)
        if given.shape != (2,) or not np.allclose(given, value, atol=1e-3):
            print(f"not yet: {answer.get(name)} for '{name}'; {hints[name]}")
            return
    print("right: from nothing of the token to all of it; what lies between is decided by rho and by the scales")


def blind_spots(answer: Mapping[str, Sequence[str]] | None) -> None:
    """Notebook 06: the losses that stay at zero for three students that differ from their teacher."""
    if _missing(answer):
        return
    assert answer is not None
    t = torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(0))
    students = {
        "negated": -t,
        "longer": t * (1 + torch.arange(25).view(5, 5) / 5),
        "every second image negated": t * torch.tensor([1, -1, 1, -1]).view(4, 1, 1, 1),
    }
    named = {
        "spatial": losses.per_position_cosine,
        "channel": losses.channel_kl,
        "intra": losses.intra_affinity,
        "inter": losses.inter_affinity,
    }
    for name, s in students.items():
        true = {key for key, distance in named.items() if float(distance(t, s)) < 1e-6}
        given = set(answer.get(name, ()))
        if wrong := sorted(given - true):
            print(f"not yet: '{wrong[0]}' is not zero for '{name}'")
            return
        if given != true:
            print(f"not yet: all that you name is right for '{name}', and {len(true - given)} more stay at zero")
            return
    print("right: each student has a loss that finds nothing wrong with it, and no student pleases all four")


def reductions(answer: Mapping[str, float] | None) -> None:
    """Notebook 06: sizes at a map of 64 x 64: how far two channel losses differ, entries of an affinity matrix."""
    if _missing(answer):
        return
    assert answer is not None
    true = {"cwd / vandgnl": 64**2, "entries": 64**4, "entries on a grid of 16": 16**4}
    for name, value in true.items():
        if abs(float(answer.get(name, 0)) - value) > 0.01 * value:
            print(f"not yet: {answer.get(name)} for '{name}'; count positions first: height times width")
            return
    print("right: the mean makes the channel loss nearly silent, and the grid makes the affinities affordable")


def auroc_by_hand(answer: float | None) -> None:
    """Notebook 00: the AUROC of three normal and three anomalous images."""
    if _missing(answer):
        return
    assert answer is not None
    scores, labels = [0.1, 0.35, 0.4, 0.3, 0.4, 0.8], [0, 0, 0, 1, 1, 1]
    true = metrics.image_metrics(scores, labels)["image_auroc"]
    if abs(float(answer) - true) > 0.005:
        print(f"not yet: {float(answer):.3f}; form all nine pairs; a tie counts one half; divide the wins by nine")
    else:
        print(f"right: {true:.3f} is the chance that a random defective image scores higher than a random normal one")


def ap_by_chance(answer: Mapping[str, float] | None) -> None:
    """Notebook 00: average precision of an uninformed detector on three VisA categories."""
    if _missing(answer):
        return
    assert answer is not None
    for name, (normal, anomalous) in {"candle": (100, 100), "cashew": (50, 100), "pcb3": (101, 100)}.items():
        true = metrics.chance([0] * normal + [1] * anomalous)["image_ap"]
        if abs(float(answer.get(name, 0)) - true) > 0.001:
            print(f"not yet: {answer.get(name)} for {name}; of all images called anomalous, what share is?")
            return
    print("right: the chance level of AP is a property of the test set, so APs of two test sets cannot be compared")


def sampled_aupro(answer: Callable[[Any, Any], float] | None) -> None:
    """Notebook 00: AUPRO from 200 evenly spaced thresholds, and what a harmless rescaling does to it."""
    if _missing(answer):
        return
    assert answer is not None
    rng, masks = np.random.default_rng(0), np.zeros((8, 48, 48), dtype=bool)
    masks[:4, 8:20, 8:20] = masks[:4, 30:34, 30:40] = True
    s = rng.normal(0, 1, masks.shape) + 1.2 * masks
    exact = [metrics.aupro(m, masks) for m in (s, np.exp(5 * s))]
    given = [float(answer(m, masks)) for m in (s, np.exp(5 * s))]
    found = (
        f"yours {given[0]:.3f} and {given[1]:.3f}, exact {exact[0]:.3f} and {exact[1]:.3f} before and after exp(5 s)"
    )
    if abs(given[0] - exact[0]) > 0.02:
        print(f"not yet: {found}; before, the two should nearly agree: is the area divided by 0.3, are regions equal?")
    elif abs(given[0] - given[1]) < 0.02:
        print(f"not yet: {found}; are your thresholds evenly spaced between the lowest and the highest score?")
    else:
        print(f"right: {found}: the order of the pixels is the same, only the sampling has changed")


def harmless_rescalings(answer: Mapping[str, bool] | None) -> None:
    """Notebook 00: which rescalings of anomaly maps leave image AUROC and AUPRO as they are."""
    if _missing(answer):
        return
    assert answer is not None
    rng, masks = np.random.default_rng(0), np.zeros((12, 16, 16), dtype=bool)
    masks[6:, 4:9, 4:9] = True
    s = rng.random(masks.shape) * rng.uniform(1, 2, (12, 1, 1)) + masks
    low, high = s.min((1, 2), keepdims=True), s.max((1, 2), keepdims=True)
    rescaled = {"exp": np.exp(5 * s), "data set": (s - s.min()) / np.ptp(s), "image": (s - low) / (high - low)}
    before = _image_and_region(s, masks)
    for name, maps in rescaled.items():
        after = _image_and_region(maps, masks)
        if answer.get(name) is not bool(np.allclose(before, after, atol=1e-6)):
            print(f"not yet: '{name}'; can it change which of two pixels, of different images, scores higher?")
            return
    print(f"right: per image, the image AUROC falls from {before[0]:.2f} to {after[0]:.2f}: every maximum becomes 1")


def _outline_of_rd() -> methods.Distiller:
    """RD with a ResNet-18 as a teacher, shapes without numbers."""
    with torch.device("meta"):
        return methods.build("rd", backbone="resnet18", weights="random")


def _missing(answer: Any) -> bool:
    """Whether an answer, or a part of it, is still the stub; says so."""
    parts = list(answer.values()) if isinstance(answer, Mapping) else answer
    parts = parts if isinstance(parts, (list, tuple)) else [parts]
    if missing := any(part is None for part in parts):
        print("not answered yet")
    return missing


def _image_and_region(maps: Any, masks: Any) -> tuple[float, float]:
    scores, labels = maps.max((1, 2)), masks.any((1, 2)).astype(int)
    return metrics.image_metrics(scores, labels)["image_auroc"], metrics.aupro(maps, masks)
