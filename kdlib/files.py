"""Files that are whole or not there: written beside their target, then renamed. Tensors as safetensors, no pickle."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Writes tensors and a JSON header beside the target, then renames: the file is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file({k: t.detach().cpu().contiguous() for k, t in tensors.items()}, beside, {"kdlib": json.dumps(meta)})
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a text file beside its target, then renames: it is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows as a CSV file with these columns, as `write_text` does."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `write_tensors` wrote.

    Raises:
        ValueError: If the file is damaged or was not written by kdlib.
    """
    with opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, header(path, file)  # noqa: SIM118 - not a mapping


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ValueError(f"'{path}' is damaged or no safetensors file ({error}); delete it or write it anew") from error


def header(path: Path, file: Any) -> dict[str, Any]:
    try:
        meta = json.loads((file.metadata() or {})["kdlib"])
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"'{path}' is a safetensors file that kdlib did not write: its header has no valid 'kdlib' entry"
        ) from error
    if not isinstance(meta, dict):
        raise ValueError(f"'{path}' has a 'kdlib' entry of type {type(meta).__name__}; expected a mapping")
    return meta
