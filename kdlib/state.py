"""Training that survives being killed: everything a run needs to go on, in files that are whole or absent.

One safetensors file per state, no pickle. ``running`` is where a phase stands, ``phase_N`` how phase N ended; a phase's
end is kept because code between two phases runs again, on those very weights, when a run is taken up.
"""

from __future__ import annotations

import json
import os
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


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what :func:`write_tensors` wrote.

    Raises:
        ValueError: If the file is damaged or was not written by kdlib.
    """
    try:
        with safe_open(path, framework="pt") as file:
            meta = (file.metadata() or {}).get("kdlib")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise ValueError(f"'{path}' is damaged or no safetensors file ({error}); delete it or write it anew") from error
    if meta is None:
        raise ValueError(f"'{path}' is a safetensors file that kdlib did not write: its header has no 'kdlib' entry")
    return tensors, json.loads(meta)


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """A model's state without the teacher's, which comes from its own weights."""
    return {k: v for k, v in model.state_dict().items() if not k.startswith("teacher.")}


def load_trained(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Puts :func:`trained_tensors` back.

    Raises:
        ValueError: If names or shapes do not fit the model.
    """
    own = trained_tensors(model)
    wrong = [
        k for k in own.keys() | tensors.keys() if k not in own or k not in tensors or own[k].shape != tensors[k].shape
    ]
    if wrong:
        raise ValueError(
            f"these weights do not fit the model: {len(wrong)} tensors are missing, surplus or misshapen, "
            f"first '{min(wrong)}'. Build the model with the configuration it was trained with."
        )
    model.load_state_dict(tensors, strict=False)


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
        """Keeps where a phase stands: weights, optimiser, step."""
        tensors = {f"model.{k}": v for k, v in trained_tensors(model).items()}
        state = optimiser.state_dict()
        for i, entries in state["state"].items():
            tensors |= {f"optimiser.{i}.{k}": v for k, v in entries.items() if isinstance(v, Tensor)}
        rates = [group["lr"] for group in state["param_groups"]]
        meta = {"key": self.key, "phase": phase, "step": step, "rates": rates, **extra}
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
        for group, rate in zip(groups, meta["rates"], strict=True):
            group["lr"] = rate
        optimiser.load_state_dict({"state": entries, "param_groups": groups})
        return meta

    def finish(self, phase: int, model: nn.Module) -> None:
        """Keeps how a phase ended."""
        write_tensors(self.folder / f"phase_{phase}.safetensors", trained_tensors(model), {"key": self.key})

    def restore(self, path: Path, model: nn.Module) -> None:
        """Loads the end of a phase."""
        tensors, meta = read_tensors(path)
        self._check(path, meta)
        load_trained(model, tensors)

    def clear(self) -> None:
        """Removes the state files of a run that is complete."""
        for path in self.folder.glob("*.safetensors"):
            if path.name == "running.safetensors" or path.name.startswith("phase_"):
                path.unlink()

    def _check(self, path: Path, meta: dict[str, Any]) -> None:
        differs = sorted(k for k in self.key.keys() | meta["key"].keys() if self.key.get(k) != meta["key"].get(k))
        if differs:
            found, wanted = ({k: d.get(k) for k in differs} for d in (meta["key"], self.key))
            raise ValueError(f"'{path}' belongs to another run: it has {found}, this run {wanted}. Use another folder.")
