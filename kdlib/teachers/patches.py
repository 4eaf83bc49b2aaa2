"""PDN: a small network that describes the patch of 33 x 33 pixels around every fourth pixel, as a teacher.

    name                 channels of its layers    of its output
    pdn_small            128, 256, 256             384
    pdn_medium           256, 512, 512, 512, 384   384
    pdn_small_quarter    32, 64, 64                96            also _half and _eighth

No file of a package and no hub has weights for it: they come from method `pdn`, which distils another network into it,
or from a file of the published code. `data/teachers` of the repository has those that quick presets use.

Source: Batzner, Heckler, König. EfficientAD. WACV 2024, tables 6 and 7.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import Normalize

from kdlib.files import add_tensors
from kdlib.teachers.probe import Style
from kdlib.teachers.pyramid import Teacher
from kdlib.teachers.weights import RANDOM, RANDOM_SEED, Weights, read_state, resolve

Architecture = Literal["small", "medium"]
SUFFIXES = {1.0: "", 0.5: "_half", 0.25: "_quarter", 0.125: "_eighth"}
"""Widths that a teacher may have, and how its name says so."""
CHANNELS = 384
STRIDE = 4
PATCH = 33
_PREFIX = "pdn_"
_OF_DETECTOR = "model.student."
_SHIPPED = Path(__file__).parents[2] / "data" / "teachers"
# Each layer's channels, kernel and padding, and what follows: a pooling, an activation, or nothing behind the last.
_LAYERS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "small": ((128, 4, 3), (256, 4, 3), (256, 3, 1), (0, 4, 0)),
    "medium": ((256, 4, 3), (512, 4, 3), (512, 1, 0), (512, 3, 1), (0, 4, 0), (0, 1, 0)),
}
_POOLED = 2  # layers with a pooling behind them, the first


def normalise() -> nn.Module:
    """Subtracts the mean of ImageNet's colours from images [B, 3, H, W] and divides by their standard deviation."""
    return Normalize(list(IMAGENET_DEFAULT_MEAN), list(IMAGENET_DEFAULT_STD))


class PDN(nn.Sequential):
    """The patch description network, of normalised images [B, 3, H, W].

    Its modules have the numbers of the published code, so that files of both fit. Without padding the output has
    H/4 - 8 rows: every description sees a whole patch. With padding it has H/4, and the rim sees zeros.

    Args:
        architecture: `small` or `medium`.
        width: Channels of the layers, as a share of the paper's.
        channels: Channels of the output [B, channels, h, w].
        padding: Whether convolutions and poolings pad.
    """

    def __init__(
        self, architecture: Architecture = "small", width: float = 1.0, channels: int = CHANNELS, padding: bool = False
    ) -> None:
        modules: list[nn.Module] = []
        before, layers = 3, _LAYERS[architecture]
        for number, (wide, kernel, pad) in enumerate(layers):
            after = max(1, round(width * wide)) if wide else channels
            modules.append(nn.Conv2d(before, after, kernel, padding=pad if padding else 0))
            if number < len(layers) - 1:
                modules.append(nn.ReLU(inplace=True))
            if number < _POOLED:
                modules.append(nn.AvgPool2d(2, 2, padding=1 if padding else 0))
            before = after
        super().__init__(*modules)
        self.channels, self.smallest = channels, 1 if padding else PATCH

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        if min(height, width) < self.smallest:
            raise ValueError(f"images are {height} x {width} px; this network describes patches of {PATCH} px: larger")
        return super().forward(x)


class PatchTeacher(Teacher):
    """PDN as a teacher of one level, without padding.

    Args:
        name: As in the table above.
        net: The network.
        weights: Where its weights come from.
        neighbourhood: As of `kdlib.teachers.Pyramid`.
    """

    def __init__(self, name: str, net: PDN, weights: Weights, neighbourhood: int = 1) -> None:
        super().__init__()
        self.name, self.weights, self.neighbourhood, self.frozen = name, weights, neighbourhood, True
        self.net, self.normalise = net, normalise()
        self.strides = (STRIDE,)
        self.channels = (net.channels,)
        self.requires_grad_(False)
        self.train(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = self.net(self.normalise(x))
        n = self.neighbourhood
        return [F.avg_pool2d(features, n, 1, n // 2, count_include_pad=False) if n > 1 else features]

    def style(self) -> Style:
        return Style(block="basic", wide=False, blocks=(2,), signed=True)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.neighbourhood}".encode())
        add_tensors(digest, self.net.state_dict().items())
        return digest.hexdigest()[:16]


def is_patch_network(name: str) -> bool:
    """Whether a network of this name is a PDN."""
    return name.startswith(_PREFIX)


def patch_name(architecture: Architecture, width: float) -> str:
    """The name of a PDN of this width, a share of the paper's.

    Raises:
        ValueError: If a teacher cannot have this width.
    """
    if width not in SUFFIXES:
        raise ValueError(f"width is {width}; expected one of {', '.join(map(str, SUFFIXES))}")
    return f"{_PREFIX}{architecture}{SUFFIXES[width]}"


def patch_teacher(name: str, strides: Sequence[int], weights: str | Path, neighbourhood: int = 1) -> PatchTeacher:
    """The teacher of this name; see `kdlib.teachers.teacher`.

    Raises:
        ValueError: If the name or the stride is unknown, or a weights file is missing or does not fit.
    """
    architecture, width = _described(name)
    if tuple(strides) != (STRIDE,):
        raise ValueError(f"'{name}' has one level, at stride {STRIDE}; got strides {tuple(strides)}: give ({STRIDE},)")
    source = resolve_patch(name, weights)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(RANDOM_SEED)
        net = PDN(architecture, width, round(width * CHANNELS))
    if source.path is not None:
        _fill(net, _states(source.path), name, source.path)
    return PatchTeacher(name, net, source, neighbourhood)


def resolve_patch(name: str, weights: str | Path = "auto") -> Weights:
    """Where the weights of a PDN come from: a file, `data/teachers`, or a seed."""
    if weights not in ("auto", "hub"):
        return resolve(name, weights)
    shipped = _SHIPPED / f"{name}.safetensors"
    return Weights(kind="shipped", tag=shipped.name, path=shipped) if shipped.is_file() else RANDOM


def _described(name: str) -> tuple[Architecture, float]:
    """Architecture and width of a PDN's name."""
    known = {patch_name(kind, width): (kind, width) for kind in get_args(Architecture) for width in SUFFIXES}
    if name not in known:
        raise ValueError(f"unknown network '{name}'; expected one of {', '.join(known)}")
    return known[name]


def _states(path: Path) -> list[Tensor]:
    """A file's tensors in order: of the network alone, or of a saved detector of method `pdn`."""
    state = read_state(path)
    chosen = {key: tensor for key, tensor in state.items() if key.startswith(_OF_DETECTOR)} or state
    return [chosen[key].float() for key in sorted(chosen, key=_place)]


def _place(key: str) -> tuple[int, bool]:
    """Where a tensor belongs: `8.weight` of the published code, `conv4.weight` of others; weights before biases."""
    layer, _, kind = key.rpartition(".")
    return int("".join(c for c in layer if c.isdigit()) or 0), kind == "bias"


def _fill(net: PDN, tensors: Sequence[Tensor], name: str, path: Path) -> None:
    own = net.state_dict()
    if [t.shape for t in own.values()] != [t.shape for t in tensors]:
        found = ", ".join(str(tuple(t.shape)) for t in tensors[:2])
        raise ValueError(
            f"'{path.name}' does not fit '{name}': it holds {len(tensors)} tensors, first {found}; expected "
            f"{len(own)}, first {tuple(next(iter(own.values())).shape)}: name the network that the weights are of"
        )
    if not all(t.isfinite().all() for t in tensors):
        raise ValueError(f"'{path.name}' holds NaN or infinite values; get it anew")
    net.load_state_dict(dict(zip(own, tensors, strict=True)))
