"""Several networks as one teacher: their features of a level stand side by side, channel after channel."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdlib.teachers.names import JOIN
from kdlib.teachers.probe import Style
from kdlib.teachers.pyramid import Teacher
from kdlib.teachers.weights import Weights


class Several(Teacher):
    """Concatenates the levels of several networks, each of which normalises the images for itself.

    Every network's features keep their own scale.

    Args:
        members: Networks with the same strides, all frozen or none.

    Raises:
        ValueError: If there are fewer than two, or their strides differ.
    """

    def __init__(self, members: Sequence[Teacher]) -> None:
        super().__init__()
        self.name = JOIN.join(member.name for member in members)
        if len(members) < 2 or len({member.strides for member in members}) > 1:
            described = ", ".join(f"'{member.name}' at {member.strides}" for member in members)
            raise ValueError(f"got {described}; expected two or more networks whose levels have the same strides")
        self.members = nn.ModuleList(members)
        self.strides = members[0].strides
        self.channels = tuple(sum(widths) for widths in zip(*(m.channels for m in members), strict=True))
        self.weights = Weights(kind="several", tag=f" {JOIN} ".join(str(m.weights) for m in members))
        self.frozen = all(member.frozen for member in members)

    def networks(self) -> list[Teacher]:
        """The networks, in order."""
        return list(self.members)  # type: ignore[arg-type]

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

    def style(self) -> Style:
        """A style that is enough for the deepest of the networks."""
        styles = [member.style() for member in self.networks()]
        return Style(
            block="bottleneck" if any(s.block == "bottleneck" for s in styles) else "basic",
            wide=any(s.wide for s in styles),
            blocks=tuple(max(counts) for counts in zip(*(s.blocks for s in styles), strict=True)),
            signed=any(s.signed for s in styles),
        )

    def fingerprint(self) -> str:
        prints = "".join(member.fingerprint() for member in self.networks())
        return hashlib.sha256(prints.encode()).hexdigest()[:16]
