"""How a network is built, so that a student can be built alike: read from its modules and from one small image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from torch import nn

from kdlib.teachers.network import create, native_size
from kdlib.teachers.weights import RANDOM, with_weights

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
    """The style of a network that gives the levels of these indices.

    Blocks are read from the modules; whether features can be negative shows a small image of noise.
    """
    channels = net.feature_info.channels()
    stages = [_stage(net, module) for module in net.feature_info.module_name()]
    blocks = [_residual_blocks(stage, width) for stage, width in zip(stages, channels, strict=True)]
    narrow, wide = _waist(blocks[-1][-1], channels[-1]) if blocks[-1] else (False, False)
    bottleneck = (narrow or channels[-1] >= _WIDTH_FOR_BOTTLENECKS) and not any(width % 4 for width in channels)
    return Style(
        block="bottleneck" if bottleneck else "basic",
        wide=bottleneck and wide,
        blocks=tuple(min(max(len(row), _FEWEST), _MOST) for row in blocks),
        signed=_is_signed(name, tuple(levels)),
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
        last = getattr(part, "conv3", getattr(part, "conv2", None))
        if last is not None and hasattr(part, "conv1"):
            convolutions = _convolutions(last)
            if convolutions and convolutions[-1].out_channels == width:
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
def _is_signed(name: str, levels: tuple[int, ...]) -> bool:
    """Whether features of noise are anywhere below zero, in a copy with random weights."""
    with torch.device("cpu"), torch.no_grad():
        net = with_weights(partial(create, name, levels), name, RANDOM).eval()
        noise = torch.Generator().manual_seed(0)
        try:
            features = net(torch.randn(1, 3, *_PROBE_SIZE, generator=noise))
        except (AssertionError, RuntimeError):  # made for one size only
            features = net(torch.randn(1, 3, *native_size(name), generator=noise))
    return any(bool((feature < 0).any()) for feature in features)
