"""MemKD forward: the memories of `memkd` between the stages of a student that sees the image, as STPM's does.

    image --+--> teacher (frozen) --------------------------------------------> t1, t2, t3 --> 1 - cos per level
            |                                                                   |   |   |
            +--> stem --> stage --> s1 --> M1 --> stage --> s2 --> M2 --> stage --> s3

Loss, paper and differences, most of it RECONSTRUCTED: see `kdlib.methods.memkd`. The student is a ResNet; only the
    first layer of a stage behind a memory is wider than in the original, as it takes the features and what they recall
    side by side.
Differs from the public code further: a teacher that is no ResNet is imitated by a ResNet with the teacher's channels.
Taught in: notebooks/11_memory.ipynb, "Break it".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kdlib.methods import memkd
from kdlib.methods.memkd import MemKD, MemKDConfig


class MemKDForward(MemKD):
    """Memory-guided distillation, forward: `memkd` with `direction="forward"`, under a name of its own for tables."""

    name = "memkd_forward"

    def __init__(self, config: MemKDConfig | None = None) -> None:
        config = config or PRESETS["mvtec"]
        if config.direction != "forward":
            raise ValueError("memkd_forward: direction is 'reverse', expected 'forward'; take memkd for the other")
        super().__init__(config)


_DIRECTION: dict[str, Any] = {"direction": "forward", "strides": (4, 8, 16)}
_QUICK = replace(memkd.PRESETS["quick"], **_DIRECTION)
PRESETS = {
    "mvtec": MemKDConfig(backbone="resnet18", **_DIRECTION),
    "quick": _QUICK,
    "full": replace(_QUICK, steps=1000),
}
