"""Building teachers, students like them, and whole classifiers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import timm
from torch import nn

from kdlib.teachers.names import DEFAULT, JOIN, full_name
from kdlib.teachers.network import create, level_indices
from kdlib.teachers.patches import is_patch_network, patch_teacher
from kdlib.teachers.pyramid import InTurn, Pyramid, Several, Teacher
from kdlib.teachers.weights import RANDOM_SEED, Weights, resolve, with_weights


def teacher(
    name: str = DEFAULT,
    strides: Sequence[int] | Sequence[Sequence[int]] = (4, 8, 16),
    weights: str | Path = "auto",
    *,
    blocks: Sequence[int] | None = None,
    neighbourhood: int = 1,
) -> Teacher:
    """A frozen, pretrained network that gives levels of features, or several networks as one.

    Args:
        name: timm name. A bare ResNet name means torchvision's weights (`tv_in1k`), as in the papers. Names with `+`
            between them, such as `resnet18+resnet34`, teach as one; see `kdlib.teachers.Several`. Names of PDN, such as
            `pdn_small`, are in `kdlib.teachers.patches`.
        strides: Levels wanted, as strides in pixels, in rising order. One list for each of several networks, like
            `((4, 8), (16, 32))`, gives levels in turn instead of side by side; see `kdlib.teachers.InTurn`.
        weights: `auto` (installed package, then local cache; the hub only if `KDLIB_DOWNLOAD=1`; else seeded
            random, with a warning), `hub` (download allowed), `random`, or a `.safetensors` / `.pth` file. For several
            networks one for all, or one for each with `+` between them.
        blocks: Levels wanted where strides do not tell them apart: the output of these blocks, counted from 1, of a
            vision transformer, or of these stages of another network. Replaces `strides`.
        neighbourhood: An odd number of positions over which every feature is averaged in height and width, as
            PatchCore does (Roth et al., CVPR 2022): what is left is texture that a student can predict.

    Raises:
        ValueError: If a network, stride or block is unknown, a weights file does not fit, or the neighbourhood is even.
    """
    if neighbourhood < 1 or neighbourhood % 2 == 0:
        raise ValueError(f"neighbourhood is {neighbourhood}; expected an odd number: 1, 3, 5, ...")
    parts = [part.strip() for part in name.split(JOIN)]
    names = [part if is_patch_network(part) else full_name(part) for part in parts]
    of_each = _strides_of_each(names, strides)
    members: list[Teacher] = []
    for each, own, wanted in zip(names, of_each, _weights_of_each(names, weights), strict=True):
        if is_patch_network(each):
            if blocks is not None:
                raise ValueError(f"'{each}' has one level, at stride 4, and no blocks to choose from; leave blocks out")
            members.append(patch_teacher(each, own, wanted, neighbourhood))
            advice = "Distil one with `python -m kdlib run pdn`, and pass its file."
        else:
            members.append(_pyramid(each, own, wanted, blocks, neighbourhood))
            advice = "Pass weights='hub' to download them, or a file."
        if members[-1].weights.kind == "random" and wanted != "random":
            warnings.warn(
                f"no weights for '{each}' on this machine: the teacher is RANDOM (seed {RANDOM_SEED}) and "
                f"detects little. {advice}",
                stacklevel=2,
            )
    if len(members) == 1:
        return members[0]
    return InTurn(members) if _one_list_each(strides) else Several(members)


def _pyramid(
    name: str, strides: Sequence[int], weights: str | Path, blocks: Sequence[int] | None, neighbourhood: int
) -> Pyramid:
    levels = level_indices(name, strides, blocks)
    source = resolve(name, weights)
    net = with_weights(partial(create, name, levels), name, source)
    return Pyramid(name, levels, net, source, frozen=True, neighbourhood=neighbourhood)


def student_like(teacher: Teacher, init: Literal["random", "pretrained"] = "random") -> Teacher:
    """A trainable teacher of the same architecture, `random` from torch's current seed or a `pretrained` copy."""
    if isinstance(teacher, Several | InTurn):
        return type(teacher)([student_like(member, init) for member in teacher.networks()])
    if not isinstance(teacher, Pyramid):
        raise ValueError(f"'{teacher.name}' is no timm network; expected a teacher made by kdlib.teachers.teacher")
    net = create(teacher.name, teacher.levels)
    # timm starts the last normalisation of a residual block at 0, so that the block is the identity; torchvision, from
    # which the papers' students come, starts it at 1.
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.ones_(module.weight)
    source = Weights(kind="random", tag="torch's current seed")
    if init == "pretrained":
        net.load_state_dict(teacher.net.state_dict())
        source = teacher.weights
    return Pyramid(teacher.name, teacher.levels, net, source, frozen=False)


def classifier(name: str = DEFAULT, weights: str | Path = "auto") -> nn.Module:
    """The whole ImageNet classifier with the same weights as `teacher`; expects normalised images."""
    name = full_name(name)
    return with_weights(partial(timm.create_model, name), name, resolve(name, weights)).eval()


def _one_list_each(strides: Sequence[int] | Sequence[Sequence[int]]) -> bool:
    return any(isinstance(entry, Sequence) for entry in strides)


def _strides_of_each(names: Sequence[str], strides: Sequence[Any]) -> Sequence[Sequence[int]]:
    if not _one_list_each(strides):
        return [strides] * len(names)
    if len(names) < 2 or len(strides) != len(names) or not all(isinstance(entry, Sequence) for entry in strides):
        raise ValueError(
            f"strides are {tuple(strides)} for {len(names)} network(s) {names}; expected one list for all, like "
            "(4, 8, 16), or, of two or more networks, one list for each, like ((4, 8), (16, 32))"
        )
    return strides


def _weights_of_each(names: Sequence[str], weights: str | Path) -> Sequence[str | Path]:
    if len(names) == 1 or weights in ("auto", "hub", "random"):
        return [weights] * len(names)
    parts = [part.strip() for part in str(weights).split(JOIN)]
    if len(parts) != len(names):
        raise ValueError(
            f"weights are '{weights}' for the {len(names)} networks {names}; expected 'auto', 'hub', 'random', or one "
            f"for each with '{JOIN}' between them, like 'first.safetensors+second.safetensors'"
        )
    return parts
