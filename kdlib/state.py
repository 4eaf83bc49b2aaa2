"""Training that survives being killed: everything a run needs to go on, in files that are whole or absent.

One safetensors file per state, no pickle. ``running`` is where a phase stands, ``phase_N`` how phase N ended; a phase's
end is kept because code between two phases runs again, on those very weights, when a run is taken up. The last phase's
end says that the run is complete.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn


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
    """Writes rows as a CSV file with these columns, as :func:`write_text` does."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what :func:`write_tensors` wrote.

    Raises:
        ValueError: If the file is damaged or was not written by kdlib.
    """
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, _header(path, file)  # noqa: SIM118 - not a mapping


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A model's state without the teacher's, which comes from its own weights."""
    return {k: v for k, v in model.state_dict().items() if not k.startswith("teacher.")}


def load_trained(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Puts :func:`trained_tensors` back.

    Raises:
        ValueError: If names or shapes do not fit the model.
    """
    try:
        found = model.load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise ValueError(f"these weights do not fit the model ({error}); build it as it was when trained") from error
    if wrong := found.unexpected_keys + [k for k in found.missing_keys if not k.startswith("teacher.")]:
        raise ValueError(
            f"these weights do not fit the model: {len(wrong)} tensors are missing or surplus, first '{min(wrong)}'; "
            "build it as it was when trained"
        )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ValueError(f"'{path}' is damaged or no safetensors file ({error}); delete it or write it anew") from error


def _header(path: Path, file: Any) -> dict[str, Any]:
    try:
        meta = json.loads((file.metadata() or {})["kdlib"])
    except (KeyError, json.JSONDecodeError) as error:
        raise ValueError(
            f"'{path}' is a safetensors file that kdlib did not write: its header has no valid 'kdlib' entry"
        ) from error
    if not isinstance(meta, dict):
        raise ValueError(f"'{path}' has a 'kdlib' entry of type {type(meta).__name__}; expected a mapping")
    return meta


def recorded(folder: Path) -> dict[str, Any]:
    """The key of the run whose state lies in a folder; empty where there is none.

    Raises:
        ValueError: If a state file is damaged.
    """
    for path in sorted(folder.glob("*.safetensors")):
        with _opened(path) as file:
            return dict(_header(path, file).get("key", {}))
    return {}


@dataclass(frozen=True)
class RunState:
    """The folder in which a run keeps how far it got.

    Attributes:
        folder: Where the state files are.
        key: What must be equal for a run to be taken up: seed, data, configuration.
    """

    folder: Path
    key: dict[str, Any]

    def finished(self, phase: int) -> Path | None:
        """The end of a phase, where it was reached."""
        path = self.folder / f"phase_{phase}.safetensors"
        return path if path.exists() else None

    def save(
        self, phase: int, step: int, model: nn.Module, optimiser: torch.optim.Optimizer, extra: dict[str, Any]
    ) -> None:
        """Keeps where a phase stands: weights, optimiser, step and whatever ``extra`` holds (JSON values)."""
        tensors = {f"model.{k}": v for k, v in trained_tensors(model).items()}
        state = optimiser.state_dict()
        for i, entries in state["state"].items():
            tensors |= {f"optimiser.{i}.{k}": v for k, v in entries.items() if isinstance(v, Tensor)}
        groups = [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]]
        meta = {"key": self.key, "phase": phase, "step": step, "groups": groups, **extra}
        write_tensors(self.folder / "running.safetensors", tensors, meta)

    def resume(self, phase: int, model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Loads where a phase stood into model and optimiser; ``None`` where there is nothing to take up.

        Raises:
            ValueError: If the state belongs to another run or is damaged.
        """
        path = self.folder / "running.safetensors"
        if not path.exists():
            return None
        tensors, meta = read_tensors(path)
        self._check(path, meta)
        if meta["phase"] != phase:
            return None
        load_trained(model, {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, i, name = key.split(".", 2)
                entries.setdefault(int(i), {})[name] = value
        groups = optimiser.state_dict()["param_groups"]
        for group, saved in zip(groups, meta["groups"], strict=True):
            group |= saved
        optimiser.load_state_dict({"state": entries, "param_groups": groups})
        # Files know no memory layout, and fused optimisers read moments in the order in which the weights lie.
        for p, state in optimiser.state.items():
            state |= {k: torch.empty_like(p).copy_(v) for k, v in state.items() if v.shape == p.shape}
        return meta

    def finish(self, phase: int, model: nn.Module, extra: dict[str, Any]) -> None:
        """Keeps how a phase ended."""
        meta = {"key": self.key, **extra}
        write_tensors(self.folder / f"phase_{phase}.safetensors", trained_tensors(model), meta)
        (self.folder / "running.safetensors").unlink(missing_ok=True)

    def restore(self, path: Path, model: nn.Module) -> dict[str, Any]:
        """Loads the end of a phase.

        Raises:
            ValueError: If the state belongs to another run or is damaged.
        """
        tensors, meta = read_tensors(path)
        self._check(path, meta)
        load_trained(model, tensors)
        return meta

    def _check(self, path: Path, meta: dict[str, Any]) -> None:
        if "key" not in meta:
            raise ValueError(f"'{path}' is no training state; choose another folder")
        differs = sorted(k for k in self.key.keys() | meta["key"].keys() if self.key.get(k) != meta["key"].get(k))
        if differs:
            found, wanted = ({k: d.get(k) for k in differs} for d in (meta["key"], self.key))
            raise ValueError(
                f"'{path}' belongs to another run: it has {found}, this run {wanted}. Choose another folder, or delete "
                "this one to start anew."
            )
