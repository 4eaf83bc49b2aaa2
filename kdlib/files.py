"""Files that are whole or not there: written beside their target, then renamed. Tensors as safetensors, no pickle."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_LONG = 200
"""Bytes of a file's name above which it gets a shorter one while it is written; file systems take 255."""


def write_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Writes tensors and a JSON header; an `OSError` if that fails, for example because the disc is full."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def write(beside: Path) -> None:
        try:
            save_file(contiguous, beside, {"kdlib": json.dumps(meta)})
        except SafetensorError as error:
            raise OSError(f"'{path}' cannot be written ({error}); free some space or name another folder") from error

    write_beside(path, write)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8."""
    write_beside(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a file beside its target, then renames it; what a killed process left beside it is removed."""
    check_folder(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    marked = path.name
    if len(os.fsencode(marked)) > _LONG:  # with more behind it, a file system may find it too long
        marked = hashlib.sha256(os.fsencode(marked)).hexdigest()
    for left in path.parent.glob(f".{glob.escape(marked)}.*.part"):
        if not _alive(left.name.split(".")[-2]):
            left.unlink(missing_ok=True)
    beside = path.with_name(f".{marked}.{os.getpid()}.part")
    try:
        beside.touch()
        rights = beside.stat().st_mode  # those of any new file here, whatever a library gives its own
        write(beside)
        beside.chmod(rights)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `write_tensors` wrote; a `ValueError` if the file is damaged or was not written by kdlib."""
    with _opened(path) as (file, meta):
        return {key: file.get_tensor(key) for key in file.keys()}, meta  # noqa: SIM118 - not a mapping


def read_header(path: Path) -> dict[str, Any]:
    """Reads the JSON header alone; a `ValueError` if the file is damaged or was not written by kdlib."""
    with _opened(path) as (_, meta):
        return meta


def checksum(meta: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over a header without its own `sha256`, and names, types, shapes and bytes of all tensors."""
    rest = {name: value for name, value in meta.items() if name != "sha256"}
    digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    add_tensors(digest, sorted(tensors.items()))
    return digest.hexdigest()


def add_tensors(digest: hashlib._Hash, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Lets names, types, shapes and bytes of tensors change a hash."""
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)


def expanded(path: str | os.PathLike[str]) -> Path:
    """A path with `~` and `~name` as the home folders that they stand for; a file called `~name` stays that file.

    Raises:
        ValueError: If there is neither.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        if Path(path).exists():
            return Path(path)
        raise ValueError(f"'{path}' begins with a home folder that nobody has here; write out the whole path") from None


def check_folder(folder: Path) -> None:
    """Refuses a folder that cannot be made, before there is anything to write into it.

    Raises:
        ValueError: If it is a file, or a file is on the way to it.
    """
    for place in (folder, *folder.parents):
        if place.is_dir():
            return
        if place.exists():
            raise ValueError(f"'{place}' is a file; expected a folder, which may be new")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder as long as it lasts.

    Raises:
        ValueError: If another process is in it, or it is a file.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"another process is at work in '{folder}'; wait for it, or choose another folder") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file, _header(path, file.metadata())
    except PermissionError:
        raise
    except (SafetensorError, OSError) as error:
        raise ValueError(f"'{path}' is damaged or no safetensors file ({error}); delete it or write it anew") from error


def _header(path: Path, metadata: dict[str, str] | None) -> dict[str, Any]:
    try:
        meta = json.loads((metadata or {})["kdlib"])
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"kdlib did not write '{path}': its header has no valid 'kdlib' entry") from error
    if not isinstance(meta, dict):
        raise ValueError(f"'{path}' has a 'kdlib' entry of type {type(meta).__name__}; expected a mapping")
    return meta


def _alive(process: str) -> bool:
    """Whether a process of this number runs on this machine; if in doubt, it does."""
    if sys.platform == "win32":  # where signal 0 would end it
        return True
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except OSError:
        pass
    return True
