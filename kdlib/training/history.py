"""What happened in training: losses of every step, time, images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """What happened in training.

    Attributes:
        rows: One dict per step: `phase`, `step` and every named loss.
        seconds: Wall time, with the teacher's pass; of a run that was taken up, without what was lost in between.
        images: Images that passed through the student.
        runtime: How it ran.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0
    runtime: str = ""

    @property
    def images_per_second(self) -> float:
        return self.images / self.seconds if self.seconds else float("nan")

    def losses(self, name: str = "total") -> list[float]:
        """One named loss over all steps that have it."""
        return [row[name] for row in self.rows if name in row]
