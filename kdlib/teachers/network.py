"""timm networks that give levels of features: which levels there are, how one is built, which image sizes it takes.

Source: timm `features_only`. An index into timm's levels means stride 1, 2 or 4 depending on the family; levels are
therefore chosen by stride, and by number only where strides do not tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import pairwise
from math import ceil
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from kdlib.teachers.weights import first_line

# What makes a transformer take images of other sizes than it was made for; a family knows one of them or none.
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
# Positions per side that convolutions without padding may take away from a level.
_LOST = 3


class Outline(NamedTuple):
    """What is known about a network without its numbers."""

    strides: tuple[int, ...]  # of all levels: blocks of a vision transformer, stages of other networks
    indices: tuple[int, ...]  # timm's index of each; it counts some that no module gives, as in TResNet
    options: dict[str, Any]  # what timm must be given to build it for images of many sizes


@lru_cache
def outline(name: str) -> Outline:
    """The outline of a network."""
    reason: Exception | None = None
    for options in _ANY_SIZE:
        try:
            with torch.random.fork_rng(devices=[]), torch.device("meta"):
                net: Any = timm.create_model(name, features_only=True, **options)
        except Exception as error:  # whatever a constructor raises for an option, or a family without levels
            reason = error
        else:
            levels = [(info["reduction"], i) for i, info in enumerate(net.feature_info.info) if info["module"]]
            strides, indices = zip(*levels, strict=True)
            return Outline(strides, indices, options)
    raise ValueError(
        f"timm gives no feature levels for '{name}' ({first_line(reason)}); choose another network, such as a ResNet, "
        "an EfficientNet, a ConvNeXt or a ViT"
    ) from reason


def level_indices(name: str, strides: Sequence[int], blocks: Sequence[int] | None) -> tuple[int, ...]:
    """Indices in timm of the last levels with these strides, or of these blocks counted from 1."""
    offered, indices, _ = outline(name)
    what, wanted = ("strides", strides) if blocks is None else ("blocks", blocks)
    if not wanted or any(b <= a for a, b in pairwise(wanted)):
        raise ValueError(f"{what} are {tuple(wanted)}; expected each once and in rising order, like (4, 8, 16)")
    if blocks is not None:
        if min(blocks) < 1 or max(blocks) > len(offered):
            raise ValueError(f"'{name}' has blocks 1 to {len(offered)}, counted from 1; got {tuple(blocks)}")
        return tuple(indices[block - 1] for block in blocks)
    if missing := [s for s in strides if s not in offered]:
        advice = ""
        if len(set(offered)) == 1:
            n = max(1, len(offered) // 4)
            advice = (
                f" only: choose among its {len(offered)} blocks (teacher_blocks in a configuration), like "
                f"blocks={(n, 2 * n, 3 * n)}"
            )
        raise ValueError(f"'{name}' has no level at stride {missing}; it has {sorted(set(offered))}{advice}")
    last_of = dict(zip(offered, indices, strict=True))
    return tuple(last_of[s] for s in strides)


def create(name: str, levels: Sequence[int], pretrained: bool = False) -> nn.Module:
    """A network that gives the levels of these indices; its weights come from torch's current seed, or the hub."""
    options = outline(name).options
    net: nn.Module = timm.create_model(name, features_only=True, out_indices=levels, pretrained=pretrained, **options)
    # timm's EfficientNets would compute what lies behind the last level and throw it away.
    last = max(getattr(net, "_stage_out_idx", {0: 0}))
    if last and isinstance(net.blocks, nn.Sequential):
        net.blocks = net.blocks[:last]
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            _avoid_strided_1x1(module)
    return net


def native_size(name: str) -> tuple[int, int]:
    """Height and width in pixels of the images that a network was made for."""
    config = timm.get_pretrained_cfg(name)
    _, height, width = (3, 224, 224) if config is None else config.input_size
    return height, width


def size_that_works(name: str, levels: Sequence[int], size: tuple[int, int]) -> tuple[int, int] | None:
    """The given image size where the network takes it, else one near it, else the one it was made for, else `None`."""
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
    """What is wrong with features of images of a size; networks that scale images give other sizes than promised."""
    for feature, stride in zip(features, net.feature_info.reduction(), strict=True):
        got = tuple(feature.shape[1:3] if gives_channels_last(net) else feature.shape[2:])
        if any(not length // stride - _LOST <= n <= ceil(length / stride) for n, length in zip(got, size, strict=True)):
            return f"its features are {got[0]} x {got[1]} where stride {stride} promises others"
    return None


def gives_channels_last(net: Any) -> bool:
    """Whether features come as [B, h, w, C], as those of Swin-like networks do."""
    return str(getattr(net, "output_fmt", "NCHW")).upper().endswith("NHWC")


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
