"""Checkers of the exercises: each computes whether a learner's answer is right, and says so in one line.

They print ``not answered yet``, ``not yet: ...`` with a hint, or ``right: ...`` with what follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from kdlib import losses, methods, metrics


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
