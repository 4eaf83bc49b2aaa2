"""Teachers: timm networks, one or several, as a pyramid of feature levels, fine to coarse, that normalises images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib.files import add_tensors
from kdlib.teachers.names import JOIN, normalisation
from kdlib.teachers.network import gives_channels_last, misshapen, native_size, size_that_works
from kdlib.teachers.probe import Style, style
from kdlib.teachers.weights import Weights, first_line


class Teacher(nn.Module):
    """What a method may ask of its teacher, whether that is one network or several.

    Attributes:
        name: Full timm name, with its weights tag where it has one.
        strides: Stride of each level in pixels.
        channels: Channels of each level.
        weights: Where the weights come from.
        frozen: A frozen teacher stays in eval mode and takes no gradient, whoever calls `train()`.
    """

    name: str
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    weights: Weights
    frozen: bool = False

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of images `x` [B, 3, H, W] in 0..1, one [B, C, h, w] per level.

        Raises:
            ValueError: If the network cannot take images of this size.
        """
        raise NotImplementedError

    def style(self) -> Style:
        """How the network is built."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Sixteen digits that tell this teacher from any other: whatever its features depend on changes them."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Teacher:
        super().train(mode and not self.frozen)
        return self


class Pyramid(Teacher):
    """One network.

    Attributes:
        levels: timm's indices of the levels.
        neighbourhood: Every feature is the mean over this many positions in height and width; 1 leaves it alone.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, levels: Sequence[int], net: Any, weights: Weights, *, frozen: bool, neighbourhood: int = 1
    ) -> None:
        super().__init__()
        self.name, self.levels, self.weights, self.frozen = name, tuple(levels), weights, frozen
        self.neighbourhood = neighbourhood
        self.net = net
        self.strides = tuple(net.feature_info.reduction())
        self.channels = tuple(net.feature_info.channels())
        self._channels_last = gives_channels_last(net)
        mean, std = normalisation(name)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        if frozen:
            self.requires_grad_(False)
        self.train(not frozen)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = self._features(x)
        if self._channels_last:
            features = [f.permute(0, 3, 1, 2).contiguous() for f in features]
        n = self.neighbourhood
        return [F.avg_pool2d(f, n, 1, n // 2, count_include_pad=False) for f in features] if n > 1 else features

    def style(self) -> Style:
        return style(self.name, self.net, self.levels)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        named = (*self.named_parameters(), *self.named_buffers())
        # A counter that forward passes do not use; files from before 2018 have none.
        add_tensors(digest, ((name, tensor) for name, tensor in named if not name.endswith("num_batches_tracked")))
        digest.update(f"{self.levels} {self.neighbourhood}".encode())
        return digest.hexdigest()[:16]

    def _features(self, x: Tensor) -> list[Tensor]:
        """The network's own output, with an error that names a size where images of this size are the fault."""
        size = (x.shape[-2], x.shape[-1])
        try:
            features: list[Tensor] = self.net((x - self.mean) / self.std)
            wrong = misshapen(features, self.net, size)
            cause = None
        except (AssertionError, RuntimeError, ValueError) as error:
            wrong, cause = first_line(error), error
        if wrong is None:
            return features
        works = size_that_works(self.name, self.levels, size)
        if cause is not None and works in (None, size):
            raise cause
        height, width = native_size(self.name) if works is None else works
        raise ValueError(
            f"'{self.name}' cannot take images of {size[0]} x {size[1]} px ({wrong}); choose {height} x {width} px, or "
            "a network that takes any size, such as a ResNet, an EfficientNet or a ConvNeXt"
        ) from cause


class _Joined(Teacher):
    """Networks that teach as one, all frozen or none; each normalises the images for itself."""

    def __init__(self, members: Sequence[Teacher]) -> None:
        super().__init__()
        self.name = JOIN.join(member.name for member in members)
        self.members = nn.ModuleList(members)
        self.weights = Weights(kind="several", tag=f" {JOIN} ".join(str(m.weights) for m in members))
        self.frozen = all(member.frozen for member in members)

    def networks(self) -> list[Teacher]:
        """The networks, in order."""
        return list(self.members)  # type: ignore[arg-type]

    def style(self) -> Style:
        """A style that is enough for the deepest of the networks."""
        styles = [member.style() for member in self.networks()]
        return Style(
            block="bottleneck" if any(s.block == "bottleneck" for s in styles) else "basic",
            wide=any(s.wide for s in styles),
            blocks=self._blocks([s.blocks for s in styles]),
            signed=any(s.signed for s in styles),
        )

    def _blocks(self, counts: list[tuple[int, ...]]) -> tuple[int, ...]:
        """Residual blocks in front of each level, out of those of each network."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        prints = "".join(member.fingerprint() for member in self.networks())
        return hashlib.sha256(prints.encode()).hexdigest()[:16]


class Several(_Joined):
    """Two or more networks with the same strides; the channels of a level stand side by side.

    Features keep the scale of their network.
    """

    def __init__(self, members: Sequence[Teacher]) -> None:
        if len(members) < 2 or len({member.strides for member in members}) > 1:
            described = ", ".join(f"'{member.name}' at {member.strides}" for member in members)
            raise ValueError(f"got {described}; expected two or more networks whose levels have the same strides")
        super().__init__(members)
        self.strides = members[0].strides
        self.channels = tuple(sum(widths) for widths in zip(*(m.channels for m in members), strict=True))

    def forward(self, x: Tensor) -> list[Tensor]:
        joined = []
        for features in zip(*(member(x) for member in self.networks()), strict=True):
            sizes = [f"{f.shape[-2]} x {f.shape[-1]}" for f in features]
            if len(set(sizes)) > 1:
                raise ValueError(
                    f"the networks of '{self.name}' give maps of {' and '.join(sizes)} for a level; choose images "
                    f"whose height and width are multiples of {self.strides[-1]}"
                )
            joined.append(torch.cat(features, dim=1))
        return joined

    def _blocks(self, counts: list[tuple[int, ...]]) -> tuple[int, ...]:
        return tuple(max(of_level) for of_level in zip(*counts, strict=True))


class InTurn(_Joined):
    """Two or more networks with levels of their own: those of the first, then those of the second, and so on."""

    def __init__(self, members: Sequence[Teacher]) -> None:
        super().__init__(members)
        self.strides = tuple(stride for member in members for stride in member.strides)
        self.channels = tuple(width for member in members for width in member.channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [feature for member in self.networks() for feature in member(x)]

    def split(self, levels: Sequence[Tensor]) -> list[list[Tensor]]:
        """Something of every level, sorted by network."""
        rest = iter(levels)
        return [[next(rest) for _ in member.strides] for member in self.networks()]

    def _blocks(self, counts: list[tuple[int, ...]]) -> tuple[int, ...]:
        return tuple(count for of_network in counts for count in of_network)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"in turn {super().fingerprint()}".encode()).hexdigest()[:16]
