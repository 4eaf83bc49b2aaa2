"""timm networks that give levels of features: which levels there are, how one is built, which image sizes it takes.

Source: timm `features_only`. An index into timm's levels means stride 1, 2 or 4 depending on the family; levels are
therefore chosen by stride, and by number only where strides do not tell them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import pairwise
from math import ceil
from typing import Any

import timm
import torch
from torch import Tensor, nn

from kdlib.teachers.weights import RANDOM_SEED, Weights

# What makes a transformer take images of other sizes than it was made for; a family knows one of them or none.
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})


# Positions per side that convolutions without padding may take away from a level.
_LOST = 3


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What is known about a network without its numbers.

    Attributes:
        strides: Stride of every level that timm offers, in the network's order: blocks of a vision transformer,
            stages of other networks.
        options: What timm must be given to build it for images of many sizes.
    """

    strides: tuple[int, ...]
    options: dict[str, Any]


@lru_cache
def outline(name: str) -> Outline:
    """The outline of a network.

    Raises:
        ValueError: If timm gives no levels for this network.
    """
    reason: Exception | None = None
    for options in _ANY_SIZE:
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                net: Any = timm.create_model(name, features_only=True, **options)
        except Exception as error:  # whatever a constructor raises for an option, or a family without levels
            reason = error
        else:
            return Outline(strides=tuple(level["reduction"] for level in net.feature_info.info), options=options)
    raise ValueError(
        f"timm gives no feature levels for '{name}' ({_first_line(reason)}); choose another network, such as a ResNet, "
        "an EfficientNet, a ConvNeXt or a ViT"
    ) from reason


def positions(name: str, strides: Sequence[int], blocks: Sequence[int] | None) -> tuple[int, ...]:
    """Positions, among all levels that timm offers, of those with these strides, or of these blocks counted from 1.

    Of several levels with one stride the last is taken.

    Raises:
        ValueError: If there is no such level, or the levels are not named in the network's order, each once.
    """
    offered = outline(name).strides
    what, wanted = ("strides", strides) if blocks is None else ("blocks", blocks)
    if not wanted or any(b <= a for a, b in pairwise(wanted)):
        raise ValueError(f"{what} are {tuple(wanted)}; expected each once and in rising order, like (4, 8, 16)")
    if blocks is not None:
        if min(blocks) < 1 or max(blocks) > len(offered):
            raise ValueError(f"'{name}' has blocks 1 to {len(offered)}, counted from 1; got {tuple(blocks)}")
        return tuple(block - 1 for block in blocks)
    if missing := [s for s in strides if s not in offered]:
        advice = ""
        if len(set(offered)) == 1:
            third = max(1, len(offered) // 4)
            advice = f" only: choose among its {len(offered)} blocks, like blocks={(third, 2 * third, 3 * third)}"
        raise ValueError(f"'{name}' has no level at stride {missing}; it has {sorted(set(offered))}{advice}")
    last_of = {stride: i for i, stride in enumerate(offered)}
    return tuple(last_of[s] for s in strides)


def create(name: str, levels: Sequence[int], pretrained: bool = False) -> nn.Module:
    """A network that gives the levels at these positions; its weights come from torch's current seed, or the hub."""
    options = outline(name).options
    net: nn.Module = timm.create_model(name, features_only=True, out_indices=levels, pretrained=pretrained, **options)
    _drop_unused_stages(net)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            _avoid_strided_1x1(module)
    return net


def seeded(build: Callable[[bool], nn.Module], name: str, weights: Weights) -> nn.Module:
    """Builds a network whose random weights, where it has any, are the same every time.

    Args:
        build: Builds it, with weights of the hub or without.
        name: Full timm name.
        weights: Where its weights come from.

    Raises:
        ValueError: If weights cannot be downloaded.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        if weights.kind != "hub":
            return build(False)
        try:
            return build(True)
        except Exception as error:  # whatever the network, the hub and its client raise
            raise ValueError(
                f"the weights of '{name}' cannot be downloaded ({_first_line(error)}); pass a file instead"
            ) from error


def native_size(name: str) -> tuple[int, int]:
    """Height and width in pixels of the images that a network was made for."""
    config = timm.get_pretrained_cfg(name)
    _, height, width = (3, 224, 224) if config is None else config.input_size
    return height, width


def size_that_works(name: str, levels: Sequence[int], size: tuple[int, int]) -> tuple[int, int] | None:
    """An image size near the given one that the network takes, else the one it was made for; `None` if unknown.

    Tried on a network without numbers. The given size itself is returned where the network takes it.
    """
    multiple = max(outline(name).strides)
    rounded = (ceil(size[0] / multiple) * multiple, ceil(size[1] / multiple) * multiple)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        net = create(name, levels).eval()
        for candidate in (size, rounded, native_size(name)):
            try:
                features = net(torch.empty(1, 3, *candidate))
            except Exception:  # whatever a network raises for an image that it cannot take
                continue
            if misshapen(features, net, candidate) is None:
                return candidate
    return None


def misshapen(features: Sequence[Tensor], net: Any, size: tuple[int, int]) -> str | None:
    """What is wrong with the sizes of features for images of a size, where a stride promises others.

    Convolutions without padding may take a few positions away; networks that scale images to a size of their own give
    quite other numbers.
    """
    channels_last = gives_channels_last(net)
    for feature, stride in zip(features, net.feature_info.reduction(), strict=True):
        got = tuple(feature.shape[1:3] if channels_last else feature.shape[2:])
        if any(not length // stride - _LOST <= n <= ceil(length / stride) for n, length in zip(got, size, strict=True)):
            return f"its features are {got[0]} x {got[1]} where stride {stride} promises others"
    return None


def gives_channels_last(net: Any) -> bool:
    """Whether features come as [B, h, w, C], as those of Swin-like networks do."""
    return str(getattr(net, "output_fmt", "NCHW")).upper().endswith("NHWC")


def _drop_unused_stages(net: Any) -> None:
    """Removes what lies behind the last level; timm's EfficientNets would compute it and throw it away."""
    last = max(getattr(net, "_stage_out_idx", {0: 0}))
    if last and isinstance(net.blocks, nn.Sequential):
        net.blocks = net.blocks[:last]


def _avoid_strided_1x1(conv: nn.Conv2d) -> None:
    """Lets a 1x1 convolution that skips positions of few channels skip them first; the result is the same.

    oneDNN (torch 2.14, float32, channels-last) writes beyond its memory in the backward pass of such a convolution
    over fewer than 8 channels, and the process dies. FastViT, MobileOne and RepVGG have one on the image.
    """
    if conv.kernel_size == (1, 1) and conv.stride != (1, 1) and conv.padding == (0, 0) and conv.in_channels < 8:
        conv.register_forward_pre_hook(partial(_skip, conv.stride))
        conv.stride = (1, 1)


def _skip(stride: tuple[int, ...], conv: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    """Every second, third, ... position of a convolution's input; a hook."""
    return inputs[0][:, :, :: stride[0], :: stride[1]]


def _first_line(error: Exception | None) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
