"""Teacher features computed once: a frozen teacher says the same about an image in every epoch."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from kdlib.runtime import Runtime

MEMORY_LIMIT = 4 * 2**30
DISK_LIMIT = 64 * 2**30
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TeacherCache:
    """Features of every training image, in memory, or memory-mapped in a temporary folder past a limit.

    Attributes:
        bytes: Size of all features.
        on_disk: Whether they are memory-mapped.
    """

    def __init__(
        self, teacher: nn.Module, batches: Iterable[Tensor], count: int, how: Runtime, *, progress: bool
    ) -> None:
        """Runs the teacher once over `count` images that come as batches [B, 3, H, W], in order."""
        self.on_disk = False
        self._levels: list[Tensor] = []
        self._channels_last = how.channels_last
        done = 0
        for images in tqdm(batches, desc="teacher features", leave=False, disable=not progress):
            with torch.no_grad(), how.autocast():
                features = [self._stored(f) for f in teacher(how.images(images))]
            if not self._levels:
                self._allocate(features, count, _DTYPES[how.precision])
            for level, feature in zip(self._levels, features, strict=True):
                level[done : done + len(images)] = feature.to(level.dtype)
            done += len(images)

    def __getitem__(self, index: Tensor) -> list[Tensor]:
        """Features [B, C, h, w] per level of the images at positions `index` [B]."""
        chosen = [level[index] for level in self._levels]
        return [f.permute(0, 3, 1, 2) for f in chosen] if self._channels_last else chosen

    @property
    def bytes(self) -> int:
        return sum(level.numel() * level.element_size() for level in self._levels)

    def _stored(self, feature: Tensor) -> Tensor:
        return feature.permute(0, 2, 3, 1).cpu() if self._channels_last else feature.cpu()

    def _allocate(self, features: Sequence[Tensor], count: int, dtype: torch.dtype) -> None:
        shapes = [(count, *f.shape[1:]) for f in features]
        size = sum(torch.Size(s).numel() for s in shapes) * dtype.itemsize
        self.on_disk = size > MEMORY_LIMIT
        if not self.on_disk:
            self._levels = [torch.empty(s, dtype=dtype) for s in shapes]
            return
        # The files lose their names at once where the system allows it: mapped they live on, a kill leaves none behind.
        with tempfile.TemporaryDirectory(prefix="kdlib-teacher-", ignore_cleanup_errors=True) as folder:
            for i, s in enumerate(shapes):
                file = str(Path(folder) / f"level_{i}")
                flat = torch.from_file(file, shared=True, size=torch.Size(s).numel(), dtype=dtype)
                self._levels.append(flat.view(s))


def worth_caching(teacher: nn.Module, image: Tensor, count: int, how: Runtime) -> bool:
    """Whether features of `count` images like `image` [1, 3, H, W] fit, and reading beats computing them.

    On an accelerator the way through main memory costs about as much as the teacher; there they are computed anew.
    """
    if how.device.type != "cpu":
        return False
    with torch.no_grad():
        numbers = sum(f.numel() for f in teacher(how.images(image)))
    size = numbers * count * _DTYPES[how.precision].itemsize
    return size <= MEMORY_LIMIT or size <= min(DISK_LIMIT, shutil.disk_usage(tempfile.gettempdir()).free // 2)
