"""Small things that training tests share: a data set of a few pictures, and methods that train in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dataset_trees as trees
import torch

import kdlib as kd
from kdlib.contract import Distiller
from kdlib.data import ImageSet, Splits, load

SIZE = 64


def data(root: Path, *categories: str, train: int = 8, size: int | tuple[int, int] = SIZE, **options: Any) -> Splits:
    """An MVTec tree of random pictures below ``root``, loaded; one category, bottle, unless others are named."""
    for category in categories or ("bottle",):
        trees.mvtec(root, category, train=train)
    return load(root, size=size, **options)


def normal(root: Path, count: int = 8, size: int = SIZE) -> ImageSet:
    """Normal images only."""
    trees.pictures(root / "part" / "train" / "good", count)
    return load(root, size=size, calib_share=0).train


def build(name: str = "stpm", **overrides: Any) -> Distiller:
    """A method with a small teacher, for a few short steps."""
    return kd.build(name, **{"steps": 4, "batch_size": 4, **overrides})


def fit(model: Distiller, images: ImageSet, **options: Any) -> kd.History:
    """Trains on the CPU in float32, silently."""
    return kd.fit(model, images, **{"device": "cpu", "precision": "fp32", "progress": False, **options})


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    """Whether two models hold the same numbers, bit by bit."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class KilledError(Exception):
    """Stands for a kill."""


def killer(at: int) -> Callable[[kd.History], None]:
    """For `on_step`: ends a run after so many steps."""

    def on_step(history: kd.History) -> None:
        if len(history.rows) == at:
            raise KilledError

    return on_step


def calibrated(model: Distiller, images: ImageSet, **options: Any) -> kd.Detector:
    """A detector, made on the CPU in float32."""
    return kd.calibrate(model, images, **{"device": "cpu", "precision": "fp32", **options})
