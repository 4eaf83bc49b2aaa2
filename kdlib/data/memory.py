"""A bounded memory for what was read from disk."""

from __future__ import annotations

from collections.abc import Hashable

from torch import Tensor
from torch.utils.data import get_worker_info


class Memory:
    """Tensors by key, up to a number of bytes.

    What comes first stays and what does not fit is not kept: in passes over more images than fit, a memory that drops
    the oldest would have dropped each one before it is asked for again.

    Args:
        budget: Bytes. Processes that load data each have a memory of their own, and share the budget.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.used = 0
        self._kept: dict[Hashable, Tensor] = {}

    def get(self, key: Hashable) -> Tensor | None:
        """The tensor that was kept under this key."""
        return self._kept.get(key)

    def keep(self, key: Hashable, tensor: Tensor) -> None:
        """Keep a tensor if it fits and is not there."""
        worker = get_worker_info()
        size = tensor.element_size() * tensor.numel()
        if key not in self._kept and self.used + size <= self.budget // (worker.num_workers if worker else 1):
            self._kept[key] = tensor
            self.used += size

    def __reduce__(self) -> tuple[type[Memory], tuple[int]]:
        """A copy for another process starts empty: sending it would cost more than reading again."""
        return Memory, (self.budget,)
