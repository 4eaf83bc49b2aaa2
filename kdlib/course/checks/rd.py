"""Checkers of notebook 02_reverse_distillation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from kdlib import losses
from kdlib.course.checks.answers import answered
from kdlib.methods.rd import RD, RDConfig


def opposite_losses(answer: Mapping[str, Any] | None) -> None:
    """Notebook 02: features of two positions that only the global cosine tells apart."""
    if not answered(answer):
        return
    t, s = (np.asarray(answer.get(name), dtype=float) for name in ("teacher", "student"))
    if t.shape != (2, 2) or s.shape != (2, 2) or min(np.linalg.norm([*t, *s], axis=1)) == 0:
        print("not yet: expected two positions of two channels each for teacher and student, no vector of length 0")
        return
    pair = [torch.from_numpy(f.T.reshape(1, 2, 1, 2)) for f in (t, s)]
    whole, each = float(losses.global_cosine(*pair)), float(losses.per_position_cosine(*pair))
    values = f"global {whole:.3f}, per position {each:.3f}"
    if each > 0.01:
        print(f"not yet: {values}; a cosine per position is blind to lengths only: keep every direction as it is")
    elif whole < 0.4:
        print(f"not yet: {values}; make the teacher long where the student is short, and the other way round")
    else:
        print(f"right: {values}: the global loss also compares how long the vectors of different positions are")


def rd_parameters(answer: Mapping[str, float] | None) -> None:
    """Notebook 02: millions of trainable numbers in the three parts of RD for a ResNet-18."""
    if not answered(answer):
        return
    student = _outline_of_rd().student
    for name, part in (("MFF", "bottleneck.reduce"), ("OCE", "bottleneck.embed"), ("decoder", "decoder")):
        true = sum(p.numel() for p in student.get_submodule(part).parameters()) / 1e6
        given = float(answer.get(name, 0))
        if abs(given - true) > 0.015 * true:
            side = "too few" if given < true else "too many"
            print(f"not yet: {given:g} million is {side} for {name}; k x k x channels in x channels out, 2 c per norm")
            return
    print(f"right: together {sum(map(float, answer.values())):.1f} million, most of them where the image is smallest")


def embedding_shapes(answer: Mapping[int, Sequence[int]] | None) -> None:
    """Notebook 02: shape of RD's embedding for a ResNet-18 and images of some sizes."""
    if not answered(answer):
        return
    model = _outline_of_rd()
    for size, given in answer.items():
        with torch.device("meta"):
            true = tuple(model.student.bottleneck(model.teach(torch.empty(1, 3, size, size)))[0].shape)
        if not isinstance(given, (list, tuple)) or tuple(given) != true:
            print(f"not yet: {given} for {size} px; compare t3: the embedding has twice its channels and half its size")
            return
    print("right: five halvings from the image to the embedding, so a size that 32 does not divide cannot be restored")


def _outline_of_rd() -> RD:
    """RD with a ResNet-18 as a teacher, shapes without numbers."""
    with torch.device("meta"):
        return RD(RDConfig(backbone="resnet18", weights="random"))
