"""How far a training got: its history, and everything it needs to go on after a kill, in files whole or absent.

running.safetensors   where a phase stands: weights, optimiser, schedule, number of steps in the history
phase_N.safetensors   how phase N ended; kept, because code between two phases runs again, on those very weights,
when a run is taken up. The last phase's end says that the run is complete.
history.jsonl         one line per step; longer than the state says where a kill came between two saves
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kdlib.contract import Distiller
from kdlib.data import ImageSet
from kdlib.files import checksum, read_header, read_tensors, write_tensors, write_text
from kdlib.runtime import Runtime

Key = dict[str, Any]
_STARTS: WeakKeyDictionary[Distiller, str] = WeakKeyDictionary()
"""The start weights of models that were trained with a state: an interrupted run may go on with its own model."""


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


def recorded(folder: Path) -> Key:
    """The key of the run whose state lies in a folder; empty where there is none."""
    for path in sorted(folder.glob("*.safetensors")):
        key = read_header(path).get("key")
        return key if isinstance(key, dict) else {}
    return {}


def run_key(
    model: Distiller,
    images: ImageSet,
    held_out: ImageSet | None,
    auxiliary: ImageSet | None,
    seed: int,
    runtime: Runtime,
    former: Key,
) -> Key:
    """What must be equal for a training to be the same as the `former` one; reads every image file once."""
    start = checksum({}, model.trained_tensors())
    if model in _STARTS and _STARTS[model] == former.get("start_weights"):
        start = _STARTS[model]
    _STARTS[model] = start
    return {
        "method": model.name,
        "config": json.loads(json.dumps(asdict(model.config))),
        "teacher": model.teacher.fingerprint(),
        "start_weights": start,
        "seed": seed,
        "images": len(images),
        "files": images.fingerprint(),
        "held_out": None if held_out is None else held_out.fingerprint(),
        "auxiliary": None if auxiliary is None else auxiliary.fingerprint(),
        "size": list(images.size),
        "precision": runtime.precision,
    }


class RunState:
    """The folder in which a run keeps how far it got.

    What is read is refused with a `ValueError` if it belongs to another run or is damaged.

    Args:
        folder: Where the state files are.
        key: See `run_key`.
    """

    def __init__(self, folder: Path, key: Key) -> None:
        self.folder, self.key = folder, key
        self._written: int | None = None  # steps in the history file, which is written anew at the first save

    def save(self, phase: int, step: int, model: Distiller, parts: Mapping[str, Any], history: History) -> None:
        """Keeps where a phase stands: its next step, the model, the history, and `parts` that have a `state_dict`."""
        tensors = {f"model.{name}": tensor for name, tensor in model.trained_tensors().items()}
        states = {name: to_json(part.state_dict(), tensors) for name, part in parts.items()}
        self._write("running", tensors, {"phase": phase, "step": step, "parts": states}, history)

    def resume(self, phase: int, model: Distiller, parts: Mapping[str, Any], history: History) -> int:
        """Puts back what `save` kept of this phase, if anything; returns the next step."""
        path = self.folder / "running.safetensors"
        if not path.exists():
            return 0
        tensors, meta = self._read(path)
        if meta["phase"] != phase:
            return 0
        model.load_trained({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
        for name, part in parts.items():
            part.load_state_dict(from_json(meta["parts"][name], tensors))
        # Files know no memory layout, and fused optimisers read moments in the order in which the weights lie.
        for p, state in parts["optimiser"].state.items():
            for name, value in state.items():
                if isinstance(value, Tensor) and value.shape == p.shape:
                    state[name] = torch.empty_like(p).copy_(value)
        self._recall(meta, history)
        return int(meta["step"])

    def finish(self, phase: int, model: Distiller, history: History) -> None:
        """Keeps how a phase ended."""
        self._write(f"phase_{phase}", model.trained_tensors(), {}, history)
        (self.folder / "running.safetensors").unlink(missing_ok=True)

    def restore(self, phase: int, model: Distiller, history: History) -> bool:
        """Puts back how a phase ended; False where it did not."""
        path = self.folder / f"phase_{phase}.safetensors"
        if not path.exists():
            return False
        tensors, meta = self._read(path)
        model.load_trained(tensors)
        self._recall(meta, history)
        return True

    def _write(self, name: str, tensors: dict[str, Tensor], meta: dict[str, Any], history: History) -> None:
        """The history first: a state may know fewer steps than it, never more."""
        path = self.folder / "history.jsonl"
        lines = "".join(json.dumps(row) + "\n" for row in history.rows[self._written or 0 :])
        if self._written is None:
            write_text(path, lines)
        else:
            with path.open("a", encoding="utf-8") as file:
                file.write(lines)
        self._written = len(history.rows)
        past = {"rows": len(history.rows), "images": history.images, "seconds": history.seconds}
        header = {"key": self.key, **past, **meta}
        write_tensors(self.folder / f"{name}.safetensors", tensors, header | {"sha256": checksum(header, tensors)})

    def _read(self, path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors, meta = read_tensors(path)
        if meta.get("sha256") != checksum(meta, tensors):
            raise ValueError(f"'{path}' is no training state, or it is damaged; choose another folder or delete it")
        saved = meta["key"]
        differing = sorted(k for k in self.key.keys() | saved.keys() if self.key.get(k) != saved.get(k))
        if differing:
            there, here = ({k: key.get(k) for k in differing} for key in (saved, self.key))
            raise ValueError(
                f"'{path}' belongs to another run: it has {there}, this run {here}. Choose another folder, or delete "
                "this one to start anew."
            )
        return tensors, meta

    def _recall(self, meta: dict[str, Any], history: History) -> None:
        """Takes over the history up to a state."""
        path = self.folder / "history.jsonl"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()[: meta["rows"]]
            history.rows = [json.loads(line) for line in lines]
        except (OSError, ValueError):
            history.rows = []
        if len(history.rows) < meta["rows"]:
            raise ValueError(
                f"'{path}' is damaged or lacks some of {meta['rows']} steps; delete the folder to start anew"
            )
        history.images, history.seconds = meta["images"], meta["seconds"]


def to_json(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A value that JSON keeps, types included, and the tensors in it, which `tensors` takes in.

    JSON's only keys are texts, and it knows no tuples: a scheduler's milestones, a counter with steps as keys, would
    come back as texts and never be met.

    Raises:
        TypeError: If the value holds something else than numbers, texts, tensors, lists, tuples and mappings.
    """
    if isinstance(value, Tensor):
        name = f"state.{len(tensors)}"
        tensors[name] = value
        return {"type": "tensor", "items": name}
    if isinstance(value, dict):
        kind = "counter" if isinstance(value, Counter) else "dict"
        return {"type": kind, "items": [[to_json(k, tensors), to_json(v, tensors)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"type": "tuple", "items": [to_json(entry, tensors) for entry in value]}
    if isinstance(value, list):
        return [to_json(entry, tensors) for entry in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be kept in a training state")


def from_json(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The value that `to_json` was given."""
    if isinstance(value, list):
        return [from_json(entry, tensors) for entry in value]
    if not isinstance(value, dict):
        return value
    if value["type"] == "tensor":
        return tensors[value["items"]]
    items = from_json(value["items"], tensors)
    if value["type"] == "tuple":
        return tuple(items)
    pairs = dict(items)
    return Counter(pairs) if value["type"] == "counter" else pairs
