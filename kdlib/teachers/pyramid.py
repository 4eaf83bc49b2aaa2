"""Teachers: any timm network as a feature pyramid, chosen by stride, with weights that always say where they come from.

Source: timm `features_only`. Levels are picked by stride, never by list index, because index 0 means stride 1, 2 or 4
depending on the family.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib.config import DEFAULT_BACKBONE
from kdlib.teachers.weights import RANDOM_SEED, Weights, load_into, resolve

DEFAULT = DEFAULT_BACKBONE
# Networks of the original papers used torchvision's first ImageNet weights; a bare timm name means other ones.
_PAPER_TAG = "tv_in1k"
_TF_LITE_MEAN, _TF_LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a network is built, so that a student can be built alike.

    Attributes:
        block: Residual block: two 3x3 convolutions, `basic`, or 1x1, 3x3, 1x1, `bottleneck`.
        wide: Bottlenecks are half instead of a quarter as wide as their output.
        blocks: Residual blocks behind each level but the first, fine to coarse, as the student's stages have them.
        signed: Features can be negative.
    """

    block: Literal["basic", "bottleneck"]
    wide: bool
    blocks: tuple[int, ...]
    signed: bool


class Teacher(nn.Module):
    """What a method may ask of its teacher, whether that is one network or several.

    Attributes:
        name: Full timm name, with its weights tag where it has one.
        strides: Stride of each level in pixels.
        channels: Channels of each level.
        weights: Where the weights come from.
    """

    name: str
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    weights: Weights

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of images `x` [B, 3, H, W] in 0..1, one [B, C, h, w] per level."""
        raise NotImplementedError

    def style(self) -> Style:
        """How the network is built."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Sixteen digits that tell these weights from any others."""
        raise NotImplementedError


class Pyramid(Teacher):
    """A network that turns images into a list of feature maps, fine to coarse.

    Attributes:
        name: Full timm name, with its weights tag where it has one.
        strides: Stride of each level in pixels.
        channels: Channels of each level.
        weights: Where the weights come from.
        frozen: A frozen pyramid stays in eval mode and takes no gradient, whoever calls `train()`.
        neighbourhood: Every feature is the mean over this many positions in height and width; 1 leaves it alone.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, strides: Sequence[int], net: Any, weights: Weights, *, frozen: bool, neighbourhood: int = 1
    ) -> None:
        super().__init__()
        self.name, self.strides, self.weights, self.frozen = name, tuple(strides), weights, frozen
        self.neighbourhood = neighbourhood
        self.net = net
        self.channels: tuple[int, ...] = tuple(net.feature_info.channels())
        self._channels_last = str(getattr(net, "output_fmt", "NCHW")).upper().endswith("NHWC")
        mean, std = _normalisation(name)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        if frozen:
            self.requires_grad_(False)
        self.train(not frozen)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of images `x` [B, 3, H, W] in 0..1, one [B, C, h, w] per level."""
        features = self.net((x - self.mean) / self.std)
        # Swin-like networks return [B, h, w, C]
        if self._channels_last:
            features = [f.permute(0, 3, 1, 2).contiguous() for f in features]
        n = self.neighbourhood
        return [F.avg_pool2d(f, n, 1, n // 2, count_include_pad=False) for f in features] if n > 1 else features

    def style(self) -> Style:
        """How the network is built."""
        deep = any(family in self.name for family in ("resnet34", "resnet50", "resnet101", "resnet152"))
        return Style(
            block="bottleneck" if self.channels[-1] >= 1024 else "basic",
            wide="wide" in self.name,
            blocks=((3, 4, 6, 3) if deep else (2, 2, 2, 2))[: len(self.channels)],
            signed=not self.name.startswith(("resnet", "wide_resnet", "regnet", "vgg", "densenet")),
        )

    def fingerprint(self) -> str:
        """Sixteen digits that tell these weights from any others: SHA-256 over all tensors in order."""
        digest = hashlib.sha256()
        for tensor in self.net.state_dict().values():
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def train(self, mode: bool = True) -> Pyramid:
        super().train(mode and not self.frozen)
        return self


def teacher(
    name: str = DEFAULT, strides: Sequence[int] = (4, 8, 16), weights: str | Path = "auto", *, neighbourhood: int = 1
) -> Pyramid:
    """A frozen, pretrained feature pyramid.

    Args:
        name: Timm name. A bare ResNet name means torchvision's weights (`tv_in1k`), as in the papers.
        strides: Levels wanted, as strides in pixels.
        weights: `auto` (installed package, then local cache; the hub only if `KDLIB_DOWNLOAD=1`; else seeded
            random, with a warning), `hub` (download allowed), `random`, or a `.safetensors` / `.pth` file.
        neighbourhood: An odd number of positions over which every feature is averaged in height and width, as
            PatchCore does (Roth et al., CVPR 2022): what is left is texture that a student can predict.

    Raises:
        ValueError: If the network or a stride is unknown, a weights file does not fit, or the neighbourhood is even.
    """
    if neighbourhood < 1 or neighbourhood % 2 == 0:
        raise ValueError(f"neighbourhood is {neighbourhood}; expected an odd number: 1, 3, 5, ...")
    name = full_name(name)
    source = resolve(name, weights)
    if source.kind == "random" and weights == "auto":
        warnings.warn(
            f"no weights for '{name}' on this machine: the teacher is RANDOM (seed {RANDOM_SEED}) and detects little. "
            "Pass weights='hub' to download them, or a file.",
            stacklevel=2,
        )
    net = _features_net(name, strides, source)
    return Pyramid(name, strides, net, source, frozen=True, neighbourhood=neighbourhood)


def student_like(pyramid: Pyramid, init: Literal["random", "pretrained"] = "random") -> Pyramid:
    """A trainable pyramid of the same architecture, `random` from torch's current seed or a `pretrained` copy."""
    net = _create(pyramid.name, _levels(pyramid.name, pyramid.strides))
    source = Weights(kind="random", tag="torch's current seed")
    if init == "pretrained":
        net.load_state_dict(pyramid.net.state_dict())
        source = pyramid.weights
    return Pyramid(pyramid.name, pyramid.strides, net, source, frozen=False)


def full_name(name: str) -> str:
    """The timm name with its weights tag: torchvision's where timm has it, else timm's own default.

    Raises:
        ValueError: If timm does not know the network or the tag.
    """
    base = name.split(".")[0]
    if not timm.is_model(base):
        close = get_close_matches(base, timm.list_models(), n=4)
        raise ValueError(f"unknown network '{name}'; expected a timm name, for example {close or [DEFAULT]}")
    known, tagged = timm.list_pretrained(f"{base}.*"), f"{base}.{_PAPER_TAG}"
    if "." in name and name not in known:
        raise ValueError(f"unknown weights '{name}'; timm has {known}")
    if "." in name or tagged in known:
        return name if "." in name else tagged
    default = timm.get_pretrained_cfg(base)
    return f"{base}.{default.tag}" if default is not None and default.tag else base


def classifier(name: str = DEFAULT, weights: str | Path = "auto") -> nn.Module:
    """The whole ImageNet classifier with the same weights as `teacher`; expects normalised images."""
    name = full_name(name)
    source = resolve(name, weights)
    net = _seeded(lambda pretrained: timm.create_model(name, pretrained=pretrained), name, source)
    load_into(net, name, source)
    return net.eval()


def _features_net(name: str, strides: Sequence[int], source: Weights) -> nn.Module:
    levels = _levels(name, strides)
    net = _seeded(lambda pretrained: _create(name, levels, pretrained), name, source)
    load_into(net, name, source)
    return net


def _seeded(create: Callable[[bool], nn.Module], name: str, source: Weights) -> nn.Module:
    """Creates a network whose random weights, where it has any, are the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        if source.kind != "hub":
            return create(False)
        try:
            return create(True)
        except Exception as error:  # whatever the network, the hub and its client raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"the weights of '{name}' cannot be downloaded ({reason}); pass a file instead") from error


def _levels(name: str, strides: Sequence[int]) -> list[int]:
    """Positions of the levels with these strides; of several with one stride the last."""
    try:
        with torch.device("meta"):
            outline: Any = timm.create_model(name, features_only=True)
    except (RuntimeError, AttributeError) as error:
        raise ValueError(f"timm gives no feature levels for '{name}' ({error}); choose another network") from error
    reductions = outline.feature_info.reduction()
    if missing := [s for s in strides if s not in reductions]:
        raise ValueError(f"'{name}' has no level at stride {missing}; it has {sorted(set(reductions))}")
    last_of = {r: i for i, r in enumerate(reductions)}
    return [last_of[s] for s in strides]


def _create(name: str, levels: Sequence[int], pretrained: bool = False) -> nn.Module:
    options: dict[str, Any] = {"strict_img_size": False} if "swin" in name else {}
    net: nn.Module = timm.create_model(name, features_only=True, out_indices=levels, pretrained=pretrained, **options)
    _drop_unused_stages(net)
    return net


def _drop_unused_stages(net: nn.Module) -> None:
    """Removes what lies behind the last level; timm's EfficientNets would compute it and throw it away."""
    last = max(getattr(net, "_stage_out_idx", {0: 0}))
    if last and isinstance(net.blocks, nn.Sequential):
        net.blocks = net.blocks[:last]


def _normalisation(name: str) -> tuple[Sequence[float], Sequence[float]]:
    if name.startswith("tf_efficientnet_lite"):
        return _TF_LITE_MEAN, _TF_LITE_STD
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise ValueError(f"timm knows no input normalisation for '{name}'; choose a network with pretrained weights")
    return config.mean, config.std
