"""Training that survives being killed: everything a run needs to go on, in files that are whole or absent.

running.safetensors   where a phase stands: weights, optimiser, schedule, number of steps in the history
phase_N.safetensors   how phase N ended; kept, because code between two phases runs again, on those very weights,
when a run is taken up. The last phase's end says that the run is complete.
history.jsonl         one line per step; longer than the state says where a kill came between two saves
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdlib.contract import Distiller
from kdlib.data import ImageSet
from kdlib.files import read_header, read_tensors, write_tensors, write_text
from kdlib.runtime import Runtime

Row = dict[str, Any]


def recorded(folder: Path) -> dict[str, Any]:
    """The key of the run whose state lies in a folder; empty where there is none.

    Raises:
        ValueError: If a state file is damaged.
    """
    for path in sorted(folder.glob("*.safetensors")):
        return dict(_checked_header(path, read_header(path))["key"])
    return {}


@dataclass
class RunState:
    """The folder in which a run keeps how far it got.

    Attributes:
        folder: Where the state files are.
        key: What must be equal for a run to be taken up: seed, data, teacher, configuration.
    """

    folder: Path
    key: dict[str, Any]
    _rows_kept: int = field(default=0, init=False)
    _history: list[str] | None = field(default_factory=list, init=False)

    def finished(self, phase: int) -> Path | None:
        """The end of a phase, where it was reached."""
        path = self.folder / f"phase_{phase}.safetensors"
        return path if path.exists() else None

    def save(
        self, phase: int, step: int, model: Distiller, optimiser: torch.optim.Optimizer, extra: Row, rows: list[Row]
    ) -> None:
        """Keeps where a phase stands: weights, optimiser, step, the history's rows, and whatever `extra` holds."""
        tensors = {f"model.{name}": tensor for name, tensor in model.trained_tensors().items()}
        state = optimiser.state_dict()
        for i, entries in state["state"].items():
            for name, value in entries.items():
                if isinstance(value, Tensor):
                    tensors[f"optimiser.{i}.{name}"] = value
        groups = [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]]
        meta = {"phase": phase, "step": step, "groups": to_json(groups), **extra}
        self._write("running", tensors, meta, rows)

    def resume(self, phase: int, model: Distiller, optimiser: torch.optim.Optimizer) -> Row | None:
        """Loads where a phase stood into model and optimiser; `None` where there is nothing to take up.

        Raises:
            ValueError: If the state belongs to another run or is damaged.
        """
        path = self.folder / "running.safetensors"
        if not path.exists():
            return None
        tensors, meta = self._read(path)
        if meta["phase"] != phase:
            return None
        model.load_trained({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        entries: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimiser."):
                _, i, name = key.split(".", 2)
                entries.setdefault(int(i), {})[name] = value
        groups = optimiser.state_dict()["param_groups"]
        for group, saved in zip(groups, from_json(meta["groups"]), strict=True):
            group |= saved
        optimiser.load_state_dict({"state": entries, "param_groups": groups})
        # Files know no memory layout, and fused optimisers read moments in the order in which the weights lie.
        for p, state in optimiser.state.items():
            state |= {k: torch.empty_like(p).copy_(v) for k, v in state.items() if v.shape == p.shape}
        return meta

    def finish(self, phase: int, model: Distiller, extra: Row, rows: list[Row]) -> None:
        """Keeps how a phase ended."""
        self._write(f"phase_{phase}", model.trained_tensors(), extra, rows)
        (self.folder / "running.safetensors").unlink(missing_ok=True)

    def restore(self, path: Path, model: Distiller) -> Row:
        """Loads the end of a phase.

        Raises:
            ValueError: If the state belongs to another run or is damaged.
        """
        tensors, meta = self._read(path)
        model.load_trained(tensors)
        return meta

    def _write(self, name: str, tensors: dict[str, Tensor], meta: Row, rows: list[Row]) -> None:
        """The history first: a state may know fewer steps than it, never more."""
        if self._history is not None:  # a kill may have left more lines than the state knows
            write_text(self.folder / "history.jsonl", "".join(f"{line}\n" for line in self._history))
            self._history = None
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "history.jsonl").open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows[self._rows_kept :])
        self._rows_kept = len(rows)
        header = {"key": self.key, "rows": len(rows), **meta}
        header["tensors"] = _tensors_digest(tensors)
        write_tensors(self.folder / f"{name}.safetensors", tensors, header | {"sha256": _digest(header)})

    def _read(self, path: Path) -> tuple[dict[str, Tensor], Row]:
        """Tensors and header of a state file, with the `history` up to there."""
        tensors, meta = read_tensors(path)
        self._check(path, _checked_header(path, meta))
        if meta.get("tensors") != _tensors_digest(tensors):
            raise ValueError(f"'{path}' is damaged: its tensors are not those that were saved; delete it to start anew")
        history = self.folder / "history.jsonl"
        try:
            lines = history.read_text(encoding="utf-8").splitlines()[: meta["rows"]]
            rows = [json.loads(line) for line in lines]
        except (OSError, ValueError) as error:
            raise ValueError(f"'{history}' is missing or damaged ({error}); delete the folder to start anew") from error
        if len(rows) < meta["rows"]:
            raise ValueError(
                f"'{history}' has {len(rows)} steps, '{path.name}' knows {meta['rows']}; delete the folder to start "
                "anew"
            )
        self._rows_kept, self._history = len(rows), lines
        return tensors, meta | {"history": rows}

    def _check(self, path: Path, meta: Row) -> None:
        saved = meta["key"]
        differing = sorted(k for k in self.key.keys() | saved.keys() if self.key.get(k) != saved.get(k))
        if differing:
            there = {k: saved.get(k) for k in differing}
            here = {k: self.key.get(k) for k in differing}
            raise ValueError(
                f"'{path}' belongs to another run: it has {there}, this run {here}. Choose another folder, or delete "
                "this one to start anew."
            )


def run_key(
    model: Distiller,
    images: ImageSet,
    held_out: ImageSet | None,
    auxiliary: ImageSet | None,
    seed: int,
    runtime: Runtime,
) -> dict[str, Any]:
    """What must be equal for a training to be the same; reads every image file once."""
    return {
        "method": model.name,
        "config": json.loads(json.dumps(asdict(model.config))),
        "teacher": model.teacher.fingerprint(),
        "seed": seed,
        "images": len(images),
        "files": images.fingerprint(),
        "held_out": None if held_out is None else held_out.fingerprint(),
        "auxiliary": None if auxiliary is None else auxiliary.fingerprint(),
        "size": list(images.size),
        "precision": runtime.precision,
    }


def _checked_header(path: Path, meta: Row) -> Row:
    counts = [meta.get("rows"), meta.get("images")]
    whole = isinstance(meta.get("key"), dict) and all(type(n) is int and n >= 0 for n in counts)
    whole = whole and meta.get("sha256") == _digest({k: v for k, v in meta.items() if k != "sha256"})
    if not whole or not isinstance(meta.get("seconds"), float):
        raise ValueError(f"'{path}' is no training state, or its header is damaged; choose another folder or delete it")
    if path.name.startswith("running") and not all(k in meta for k in ("phase", "step", "groups", "schedule")):
        raise ValueError(f"'{path}' has an incomplete header; delete it to start the phase anew")
    return meta


def _tensors_digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest(header: Row) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def to_json(value: Any) -> Any:
    """A value that JSON keeps, types included: its texts are the only keys, and it knows no tuples.

    A scheduler's milestones, a counter with steps as keys, would come back as texts and never be met.

    Raises:
        TypeError: If the value holds something else than numbers, texts, lists, tuples and mappings.
    """
    if isinstance(value, dict):
        kind = "counter" if isinstance(value, Counter) else "dict"
        return {"type": kind, "items": [[to_json(k), to_json(v)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"type": "tuple", "items": [to_json(entry) for entry in value]}
    if isinstance(value, list):
        return [to_json(entry) for entry in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be kept in a training state")


def from_json(value: Any) -> Any:
    """The value that `to_json` was given."""
    if isinstance(value, list):
        return [from_json(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    items = [from_json(entry) for entry in value["items"]]
    if value["type"] == "tuple":
        return tuple(items)
    pairs = {key: entry for key, entry in items}
    return Counter(pairs) if value["type"] == "counter" else pairs
