"""Students that have a neck: in reverse, a decoder behind a bottleneck; forward, a network like the teacher.

reverse   features t --> embed --> neck --> decode --> s        student(x, t) -> (s, losses of the neck)
forward   image x --> network --> s, the last level through the neck
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from kdlib.layers.bottleneck import OneClassBottleneck
from kdlib.layers.decoder import PyramidDecoder
from kdlib.layers.necks import Through
from kdlib.teachers import Teacher

Features = list[Tensor]
Named = dict[str, Tensor]


class ReverseStudent(nn.Module):
    """Embeds the teacher's features in a bottleneck and restores them, fine to coarse.

    Args:
        teacher: Whose features are restored; each stride must double the one before.
        neck: Makes the neck for embeddings of so many channels.
        block: Residual block of bottleneck and decoder; `auto` is the teacher's.
        embed_blocks: Residual blocks of the embedding (OCE); `None` follows the teacher.
        decoder_blocks: Residual blocks per decoder stage, coarse to fine; `None` follows the teacher.
        width: Channels of the embedding; `None` is twice the coarsest level's.
        multi_scale: Fuse all levels before the embedding (MFF).
        decoder: Makes the decoder.
        embedded: The teacher's coarsest level has the embedding's size and gives its width; it is not restored.

    Raises:
        ValueError: If the teacher's strides do not double.
    """

    def __init__(
        self,
        teacher: Teacher,
        neck: Callable[[int], nn.Module] = Through,
        *,
        block: Literal["auto", "basic", "bottleneck"] = "auto",
        embed_blocks: int | None = None,
        decoder_blocks: tuple[int, ...] | None = None,
        width: int | None = None,
        multi_scale: bool = True,
        decoder: Callable[..., nn.Module] = PyramidDecoder,
        embedded: bool = False,
    ) -> None:
        super().__init__()
        check_strides(teacher)
        style = teacher.style()
        kind = style.block if block == "auto" else block
        self.levels = len(teacher.channels) - embedded
        channels = teacher.channels[: self.levels]
        self.multiple = 2 * teacher.strides[self.levels - 1]
        self.bottleneck = OneClassBottleneck(
            channels,
            kind=kind,
            blocks=embed_blocks or (3 if max(style.blocks) > 2 else 2),
            wide=style.wide,
            width=teacher.channels[-1] if embedded else width,
            multi_scale=multi_scale,
        )
        self.decoder = decoder(
            self.bottleneck.out_channels,
            channels,
            kind=kind,
            blocks=decoder_blocks or style.blocks[: self.levels],
            wide=style.wide,
            signed=style.signed,
        )
        self.neck = neck(self.bottleneck.out_channels)

    def forward(self, x: Tensor, t: Sequence[Tensor]) -> tuple[Features, Named]:
        """Student features like `t`, [B, C, h, w] per level, and the neck's losses.

        Raises:
            ValueError: If images `x` [B, 3, H, W] cannot be halved often enough.
        """
        z, named = self.neck(self.embed(x, t))
        return self.decoder(z), named

    def embed(self, x: Tensor, t: Sequence[Tensor]) -> Tensor:
        """The embedding [B, C, h, w] that enters the neck."""
        check_sizes(x, t, self.multiple)
        return self.bottleneck(t[: self.levels])


class ForwardStudent(nn.Module):
    """A network like the teacher, whose last level passes the neck.

    Args:
        network: Gives the student's features of images.
        neck: Makes the neck for that many channels of the last level.
    """

    def __init__(self, network: Teacher, neck: Callable[[int], nn.Module] = Through) -> None:
        super().__init__()
        self.network = network
        self.neck = neck(network.channels[-1])

    def forward(self, x: Tensor, t: Sequence[Tensor]) -> tuple[Features, Named]:
        """Student features [B, C, h, w] per level of images `x` [B, 3, H, W], and the neck's losses."""
        *fine, last = self.network(x)
        z, named = self.neck(last)
        return [*fine, z], named

    def embed(self, x: Tensor, t: Sequence[Tensor]) -> Tensor:
        """The last level [B, C, h, w], which enters the neck."""
        return self.network(x)[-1]


def check_strides(teacher: Teacher) -> None:
    """Refuses teachers whose strides a decoder cannot double.

    Raises:
        ValueError: If they do not double from level to level.
    """
    if any(coarse != 2 * fine for fine, coarse in pairwise(teacher.strides)):
        raise ValueError(
            f"'{teacher.name}' gives levels at strides {teacher.strides}; a student in reverse doubles sizes and "
            "needs strides that do so, like (4, 8, 16): choose such strides, or another network"
        )


def check_sizes(x: Tensor, t: Sequence[Tensor], multiple: int) -> None:
    """Refuses images and features whose sizes a decoder cannot restore.

    Raises:
        ValueError: If height and width of images `x` [B, 3, H, W] are no multiples of so many pixels, or features `t`
            [B, C, h, w] do not halve from level to level.
    """
    if x.shape[-2] % multiple or x.shape[-1] % multiple:
        raise ValueError(
            f"images are {x.shape[-2]} x {x.shape[-1]} px; height and width must be multiples of {multiple} "
            "because the decoder doubles sizes. Choose such a size."
        )
    sizes = [tuple(f.shape[-2:]) for f in t]
    if any((h, w) != (2 * next_h, 2 * next_w) for (h, w), (next_h, next_w) in pairwise(sizes)):
        raise ValueError(
            f"the teacher gives maps of {sizes} positions, which do not halve from level to level; a student in "
            "reverse needs maps that do: choose another network, such as a ResNet"
        )
