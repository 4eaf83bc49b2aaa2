"""How a network is built, so that a student can be built alike: read from its modules and from one small image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdlib.teachers.network import create, native_size, seeded
from kdlib.teachers.weights import RANDOM_SEED, Weights

# Bottlenecks have a quarter of the weights; networks with this many channels would be too heavy without them.
_WIDTH_FOR_BOTTLENECKS = 1024
_FEWEST, _MOST = 2, 6
_PROBE_SIZE = (64, 64)


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a network is built, so that a student can be built alike.

    Attributes:
        block: Residual block: two 3x3 convolutions, `basic`, or 1x1, 3x3, 1x1, `bottleneck`.
        wide: Bottlenecks are half instead of a quarter as wide as their output.
        blocks: Residual blocks in front of each level, fine to coarse, at least 2 and at most 6, 2 in networks of
            other blocks. A decoder has as many per stage, in its own order, as in RD4AD's code.
        signed: Features can be negative.
    """

    block: Literal["basic", "bottleneck"]
    wide: bool
    blocks: tuple[int, ...]
    signed: bool


def style(name: str, net: Any, levels: Sequence[int]) -> Style:
    """The style of a network that gives the levels at these positions.

    Blocks are read from the modules. Whether features can be negative shows a small image of noise: the same in every
    process, and torch's generator is left alone. A network without numbers, on the device `meta`, is probed as a copy
    with random weights.
    """
    channels = net.feature_info.channels()
    stages = [_stage(net, module) for module in net.feature_info.module_name()]
    blocks = [_residual_blocks(stage, width) for stage, width in zip(stages, channels, strict=True)]
    narrow, wide = _waist(blocks[-1][-1], channels[-1]) if blocks[-1] else (False, False)
    bottleneck = (narrow or channels[-1] >= _WIDTH_FOR_BOTTLENECKS) and not any(width % 4 for width in channels)
    on_meta = any(p.is_meta for p in net.parameters())
    return Style(
        block="bottleneck" if bottleneck else "basic",
        wide=bottleneck and wide,
        blocks=tuple(min(max(len(row), _FEWEST), _MOST) for row in blocks),
        signed=_copy_is_signed(name, tuple(levels)) if on_meta else _is_signed(name, net),
    )


def _stage(net: nn.Module, module: str) -> nn.Module | None:
    """The module whose output is a level; timm renames `layers.0` to `layers_0`, or puts a network into another."""
    flat = module.replace(".", "_")
    for name, part in net.named_modules():
        if name.replace(".", "_") in (flat, f"model_{flat}", f"body_{flat}"):
            return part
    return None


def _residual_blocks(stage: nn.Module | None, width: int) -> list[nn.Module]:
    """Blocks of a ResNet or one of its kin: two or three convolutions, the last of which gives the stage's channels."""
    blocks = []
    for part in stage.modules() if stage is not None else ():
        if hasattr(part, "conv1") and (hasattr(part, "conv2") or hasattr(part, "conv3")):
            last = _convolutions(part.conv3 if hasattr(part, "conv3") else part.conv2)
            if last and last[-1].out_channels == width:
                blocks.append(part)
    return blocks


def _waist(block: nn.Module, width: int) -> tuple[bool, bool]:
    """Whether a residual block narrows, and whether to half its output's channels, not fewer, in dense convolutions."""
    first = _convolutions(block.conv1)[0]
    narrow = hasattr(block, "conv3") and 2 * first.out_channels <= width
    grouped = any(conv.groups > 1 for conv in _convolutions(block))
    return narrow, narrow and 2 * first.out_channels == width and not grouped


def _convolutions(module: Any) -> list[nn.Conv2d]:
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]


@lru_cache
def _copy_is_signed(name: str, levels: tuple[int, ...]) -> bool:
    random = Weights(kind="random", tag=f"seed {RANDOM_SEED}")
    with torch.device("cpu"):
        return _is_signed(name, seeded(lambda pretrained: create(name, levels, pretrained), name, random))


def _is_signed(name: str, net: nn.Module) -> bool:
    """Whether the network's features of noise are anywhere below zero."""
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad():
            features = _features_of_noise(name, net)
    finally:
        net.train(was_training)
    return any(bool((feature < 0).any()) for feature in features)


def _features_of_noise(name: str, net: nn.Module) -> list[Tensor]:
    weight = next(net.parameters())
    features: list[Tensor]
    try:
        features = net(_noise(_PROBE_SIZE).to(weight))
    except (AssertionError, RuntimeError):  # made for one size only
        features = net(_noise(native_size(name)).to(weight))
    return features


def _noise(size: tuple[int, int]) -> Tensor:
    return torch.randn(1, 3, *size, device="cpu", generator=torch.Generator("cpu").manual_seed(0))
