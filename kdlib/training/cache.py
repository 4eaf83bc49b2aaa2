"""Teacher features computed once: a frozen teacher says the same about an image in every epoch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn
from tqdm.auto import tqdm

from kdlib.runtime import DTYPES, Runtime

MEMORY_LIMIT = 4 * 2**30
DISK_LIMIT = 64 * 2**30


class TeacherCache:
    """Features of every training image: in memory, or past a limit in files that are mapped into it.

    Several processes of one machine share the files; each fills its part of the `count` images out of `batches` of
    positions [B] and images [B, 3, H, W]. `on_disk` tells where the features are. A full disc is an `OSError`.
    """

    def __init__(
        self,
        teacher: nn.Module,
        shapes: Sequence[torch.Size],
        batches: Iterable[tuple[Tensor, Tensor]],
        count: int,
        runtime: Runtime,
        processes: PartialState,
        *,
        progress: bool,
    ) -> None:
        self._channels_last, dtype = runtime.channels_last, DTYPES[runtime.precision]
        ordered = [(count, h, w, c) if runtime.channels_last else (count, c, h, w) for _, c, h, w in shapes]
        self.on_disk = _bytes(shapes, count, dtype) > MEMORY_LIMIT or processes.num_processes > 1
        if self.on_disk:
            self._levels = _mapped(ordered, dtype, processes)
        else:
            self._levels = [torch.empty(shape, dtype=dtype) for shape in ordered]
        for index, images in tqdm(batches, desc="teacher features", leave=False, disable=not progress):
            with torch.no_grad(), runtime.autocast():
                features = teacher(runtime.images(images))
            for level, feature in zip(self._levels, features, strict=True):
                stored = feature.permute(0, 2, 3, 1) if self._channels_last else feature
                level[index] = stored.cpu().to(dtype)
        processes.wait_for_everyone()

    def __getitem__(self, index: Tensor) -> list[Tensor]:
        """Features [B, C, h, w] per level of the images at positions `index` [B]."""
        chosen = [level[index] for level in self._levels]
        return [f.permute(0, 3, 1, 2) for f in chosen] if self._channels_last else chosen


def feature_shapes(teacher: nn.Module, image: Tensor, runtime: Runtime) -> list[torch.Size]:
    """Shapes [1, C, h, w] of the teacher's features of one image [1, 3, H, W], per level."""
    with torch.no_grad():
        return [f.shape for f in teacher(runtime.images(image))]


def worth_caching(shapes: Sequence[torch.Size], count: int, runtime: Runtime) -> bool:
    """Whether such features of `count` images fit, and reading them beats computing them.

    On an accelerator the way through main memory costs about as much as the teacher; there they are computed anew.
    """
    if runtime.device.type != "cpu":
        return False
    size = _bytes(shapes, count, DTYPES[runtime.precision])
    return size <= MEMORY_LIMIT or size <= min(DISK_LIMIT, shutil.disk_usage(tempfile.gettempdir()).free // 2)


def _bytes(shapes: Sequence[torch.Size], count: int, dtype: torch.dtype) -> int:
    return sum(shape.numel() for shape in shapes) * count * dtype.itemsize


def _mapped(shapes: Sequence[tuple[int, ...]], dtype: torch.dtype, processes: PartialState) -> list[Tensor]:
    """Empty tensors in files that all processes of a machine map."""
    levels = []
    with _shared_folder(processes) as folder:
        sizes = {folder / f"level_{i}": torch.Size(shape).numel() for i, shape in enumerate(shapes)}
        if processes.is_local_main_process:
            for file, size in sizes.items():
                _reserve(file, size * dtype.itemsize)
        processes.wait_for_everyone()
        for (file, size), shape in zip(sizes.items(), shapes, strict=True):
            levels.append(torch.from_file(str(file), shared=True, size=size, dtype=dtype).view(shape))
        processes.wait_for_everyone()
    return levels


@contextmanager
def _shared_folder(processes: PartialState) -> Iterator[Path]:
    """A temporary folder that all processes of a machine know.

    Its files lose their names at once where the system allows it: mapped they live on, and a kill leaves none behind.
    """
    with tempfile.TemporaryDirectory(prefix="kdlib-teacher-", ignore_cleanup_errors=True) as own:
        name: list[Any] = [Path(own).name]
        broadcast_object_list(name)
        folder = Path(tempfile.gettempdir()) / name[0]
        with suppress(FileExistsError):
            folder.mkdir()
        yield folder
        if processes.is_local_main_process:
            shutil.rmtree(folder, ignore_errors=True)


def _reserve(file: Path, size: int) -> None:
    """Makes a file of this size with all its space: on a full disc, writing to a mapped file kills a process."""
    try:
        with file.open("wb") as handle:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle.fileno(), 0, size)
                return
            zeros = bytes(2**20)
            for start in range(0, size, len(zeros)):
                handle.write(zeros[: size - start])
    except OSError as error:
        raise OSError(
            f"no room for {size / 2**30:.1f} GB of teacher features in '{file.parent.parent}' ({error}); free some "
            "space, name another folder in TMPDIR, or call fit(cache=False)"
        ) from error
