"""The first line of a notebook or script: seeds, where everything runs, and what is in use."""

from __future__ import annotations

import numpy as np
import torch

from kdlib import teachers
from kdlib.runtime import Runtime, prefer, versions


def setup(seed: int = 0, *, device: str = "auto", precision: str = "auto") -> Runtime:
    """Starts a notebook: seeds torch and NumPy, chooses how to run, and prints versions and teacher weights in use.

    Everything called later with `device="auto"` or `precision="auto"` runs as chosen here.
    """
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for libraries that still draw from the global generator
    runtime = prefer(device, precision)
    name = teachers.full_name(teachers.DEFAULT)
    print(", ".join(f"{package} {version}" for package, version in versions().items()))
    print(f"runs on: {runtime}; default teacher: {name}, weights {teachers.resolve(name)}")
    return runtime
