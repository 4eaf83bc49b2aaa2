"""Residual blocks of reverse distillation: timm's ResNet blocks, strided down or turned around to double the size."""

from __future__ import annotations

from typing import Literal

from timm.models.resnet import BasicBlock, Bottleneck
from torch import nn

Kind = Literal["basic", "bottleneck"]


def stage(
    kind: Kind, c_in: int, c_out: int, blocks: int, *, scale: Literal["down", "same", "up"], wide: bool = False
) -> nn.Sequential:
    """A row of residual blocks whose first halves ("down"), keeps ("same") or doubles ("up") height and width.

    Args:
        kind: `basic` (two 3x3 convolutions) or `bottleneck` (1x1, 3x3, 1x1).
        c_in: Channels in.
        c_out: Channels out; a multiple of 4 for bottlenecks.
        blocks: Number of blocks.
        scale: What the first block does to the size.
        wide: Bottlenecks of half instead of a quarter of the output's channels, as in wide ResNets.
    """
    make = {"down": _down, "same": _same, "up": _up}[scale]
    rest = [_block(kind, c_out, c_out, wide) for _ in range(blocks - 1)]
    return nn.Sequential(make(kind, c_in, c_out, wide), *rest)


def stem(width: int) -> nn.Sequential:
    """What a ResNet begins with: images [B, 3, H, W] to [B, width, H/4, W/4]."""
    return nn.Sequential(
        nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),
    )


def initialise(module: nn.Module) -> None:
    """Kaiming-normal (fan out) for convolutions, PyTorch's default for transposed ones. Source: RD4AD's code."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")


def without_last_relu(block: nn.Module) -> None:
    """Lets a block's output be negative, for teachers whose features are."""
    setattr(block, "act2" if isinstance(block, BasicBlock) else "act3", nn.Identity())


def _block(
    kind: Kind, c_in: int, c_out: int, wide: bool, stride: int = 1, shortcut: nn.Module | None = None
) -> nn.Module:
    if kind == "basic":
        return BasicBlock(c_in, c_out, stride=stride, downsample=shortcut)
    return Bottleneck(c_in, c_out // 4, stride=stride, downsample=shortcut, base_width=128 if wide else 64)


def _down(kind: Kind, c_in: int, c_out: int, wide: bool) -> nn.Module:
    return _block(kind, c_in, c_out, wide, stride=2, shortcut=_projection(c_in, c_out, 2))


def _same(kind: Kind, c_in: int, c_out: int, wide: bool) -> nn.Module:
    return _block(kind, c_in, c_out, wide, shortcut=_projection(c_in, c_out, 1) if c_in != c_out else None)


def _up(kind: Kind, c_in: int, c_out: int, wide: bool) -> nn.Module:
    shortcut = nn.Sequential(_doubling(c_in, c_out), nn.BatchNorm2d(c_out))
    block = _block(kind, c_in, c_out, wide, shortcut=shortcut)
    name = "conv1" if kind == "basic" else "conv2"
    turned = block.get_submodule(name)
    assert isinstance(turned, nn.Conv2d)
    setattr(block, name, _doubling(turned.in_channels, turned.out_channels))
    return block


def _projection(c_in: int, c_out: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False), nn.BatchNorm2d(c_out))


def _doubling(c_in: int, c_out: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(c_in, c_out, 2, stride=2, bias=False)
