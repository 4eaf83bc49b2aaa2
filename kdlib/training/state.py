"""Training that survives being killed: everything a run needs to go on, in files that are whole or absent.

One safetensors file per state, no pickle. `running` is where a phase stands, `phase_N` how phase N ended; a phase's
end is kept because code between two phases runs again, on those very weights, when a run is taken up. The last phase's
end says that the run is complete.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdlib.contract import Distiller
from kdlib.files import header, opened, read_tensors, write_tensors


def recorded(folder: Path) -> dict[str, Any]:
    """The key of the run whose state lies in a folder; empty where there is none.

    Raises:
        ValueError: If a state file is damaged.
    """
    for path in sorted(folder.glob("*.safetensors")):
        with opened(path) as file:
            return dict(header(path, file).get("key", {}))
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
        self, phase: int, step: int, model: Distiller, optimiser: torch.optim.Optimizer, extra: dict[str, Any]
    ) -> None:
        """Keeps where a phase stands: weights, optimiser, step and whatever `extra` holds (JSON values)."""
        tensors = {f"model.{k}": v for k, v in model.trained_tensors().items()}
        state = optimiser.state_dict()
        for i, entries in state["state"].items():
            tensors |= {f"optimiser.{i}.{k}": v for k, v in entries.items() if isinstance(v, Tensor)}
        groups = [{k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]]
        meta = {"key": self.key, "phase": phase, "step": step, "groups": groups, **extra}
        write_tensors(self.folder / "running.safetensors", tensors, meta)

    def resume(self, phase: int, model: Distiller, optimiser: torch.optim.Optimizer) -> dict[str, Any] | None:
        """Loads where a phase stood into model and optimiser; `None` where there is nothing to take up.

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
        model.load_trained({k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")})
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

    def finish(self, phase: int, model: Distiller, extra: dict[str, Any]) -> None:
        """Keeps how a phase ended."""
        meta = {"key": self.key, **extra}
        write_tensors(self.folder / f"phase_{phase}.safetensors", model.trained_tensors(), meta)
        (self.folder / "running.safetensors").unlink(missing_ok=True)

    def restore(self, path: Path, model: Distiller) -> dict[str, Any]:
        """Loads the end of a phase.

        Raises:
            ValueError: If the state belongs to another run or is damaged.
        """
        tensors, meta = read_tensors(path)
        self._check(path, meta)
        model.load_trained(tensors)
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
