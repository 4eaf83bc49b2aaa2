"""The memory of normality: what it recalls, as in the public code and worked out by hand."""

from __future__ import annotations

from math import e
from pathlib import Path

import numpy as np
import pytest
import torch

from kdlib.layers.recall import NormalityMemory

REFERENCE = Path(__file__).parent / "reference" / "memory.npz"


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape and (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("i", [0, 1])
def test_recall_is_that_of_the_public_code(i: int) -> None:
    with np.load(REFERENCE) as arrays:
        reference = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    memory = NormalityMemory(reference[f"keys{i}"].shape[1], slots=7)
    memory.load_state_dict({"keys": reference[f"keys{i}"], "values": reference[f"values{i}"]})
    with torch.no_grad():
        close(memory(reference[f"x{i}"]), reference[f"recall_keys{i}"])
        close(memory(reference[f"x{i}"], "values"), reference[f"recall_values{i}"])
        close(memory(reference[f"exemplar{i}"], "values"), reference[f"normality{i}"])


def test_one_slot_of_fifty_never_speaks_alone_at_temperature_one() -> None:
    memory = NormalityMemory(2, slots=50)
    with torch.no_grad():
        memory.keys[:] = torch.tensor([-1.0, 0.0])
        memory.keys[0] = torch.tensor([1.0, 0.0])
        x = torch.tensor([3.0, 0.0]).view(1, 2, 1, 1)
        assert float(memory.shares(x)[0, 0]) == pytest.approx(e / (e + 49 / e), rel=1e-5)
        memory.temperature = 0.05
        assert float(memory.shares(x)[0, 0]) > 0.999
        close(memory(x).flatten(), memory.values[0])


def test_worked_out_by_hand() -> None:
    memory = NormalityMemory(2, slots=2)
    with torch.no_grad():
        memory.keys[:] = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
        memory.values[:] = torch.tensor([[1.0, 1.0], [0.0, -4.0]])
        x = torch.tensor([0.6, 0.8]).view(1, 2, 1, 1)
        a, b = np.exp(0.6), np.exp(0.8)
        close(memory(x).flatten(), torch.tensor([a, a - 4 * b], dtype=torch.float32) / float(a + b))
        half = 0.5**0.5
        torch.testing.assert_close(memory.alignment(), torch.tensor([[half, 0.0], [half, -1.0]]))


def test_shares_sum_to_one_and_frozen_memories_are_saved_too() -> None:
    memory, x = NormalityMemory(6, slots=5, trainable=False), torch.randn(2, 6, 3, 4)
    assert not list(memory.parameters()) and set(memory.state_dict()) == {"keys", "values"}
    torch.testing.assert_close(memory.shares(x).sum(1), torch.ones(2, 3, 4))
    torch.testing.assert_close(memory.shares(10 * x), memory.shares(x))  # only the direction of a feature asks


def test_half_precision_changes_nothing_in_the_shares() -> None:
    memory, x = NormalityMemory(6, slots=5), torch.randn(2, 6, 3, 4)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(memory(x), memory.float()(x))
        assert memory(x).dtype == memory.alignment().dtype == torch.float32
