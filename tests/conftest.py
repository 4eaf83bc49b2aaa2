"""What holds for every test: no window, one thread per operator, the same random numbers each time."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

matplotlib.use("Agg")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def fresh_start() -> Iterator[None]:
    """Seed before each test; close the figures that it left open after it."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - for libraries that still draw from the global generator
    yield
    plt.close("all")
