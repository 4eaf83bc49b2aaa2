"""Arrays that published code computed, and its recipes for weights and images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "reference"


def arrays(method: str) -> dict[str, Tensor]:
    """All numbers of a method's file."""
    with np.load(FOLDER / f"{method}.npz") as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored.files if stored[name].dtype.kind != "U"}


def names(method: str) -> list[str]:
    """The published names of the tensors of a network of real width, in order."""
    with np.load(FOLDER / f"{method}.npz") as stored:
        return [str(name) for name in stored["full_state_names"]]


def close(ours: Tensor, theirs: Tensor) -> None:
    """Equal to a hundred thousandth of the largest value."""
    assert ours.shape == theirs.shape
    assert float((ours.detach() - theirs).abs().max()) <= 1e-5 * float(theirs.abs().max())


def filled(shapes: Mapping[str, torch.Size], seed: int) -> dict[str, Tensor]:
    """Weights of a network by its tensors' shapes in order; counters count as well, but get nothing."""
    state = {}
    for i, (name, shape) in enumerate(shapes.items()):
        drawn = np.random.RandomState(seed + i).standard_normal(tuple(shape))
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith("running_var"):
            drawn = np.exp(0.3 * drawn)
        elif name.endswith("running_mean"):
            drawn = 0.2 * drawn
        elif drawn.ndim >= 2:
            drawn = drawn * np.sqrt(2 / np.prod(shape[1:]))
        else:
            drawn = 1 + 0.2 * drawn if name.endswith("weight") else 0.1 * drawn
        state[name] = torch.from_numpy(drawn.astype(np.float32))
    return state


def image(side: int) -> Tensor:
    """An image [1, 3, S, S] of waves."""
    i, j = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    ripples = 0.3 * np.sin(0.9 * i) * np.cos(1.1 * j)
    planes = [np.sin(0.05 * i * (c + 1)) + np.cos(0.07 * j + 0.5 * c) + ripples for c in range(3)]
    return torch.from_numpy(np.stack(planes)[None].astype(np.float32))
