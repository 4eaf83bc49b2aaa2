"""Reading training images: in the order of a plan that is made step by step, with views."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from kdlib.contract import View
from kdlib.data import ImageSet
from kdlib.randomness import Salt, mix

Key = tuple[int, int]
"""Position of an image in its set, and the step that shows it."""


class Reader(Dataset[dict[str, Any]]):
    """One image per key: its pixels, its category, and what a view makes of it.

    Args:
        images: The set.
        view: See `kdlib.contract.View`.
        seed: Of the views.
    """

    def __init__(self, images: ImageSet, view: View | None = None, seed: int = 0) -> None:
        self.images, self.view, self.seed = images, view, seed

    def __getitem__(self, key: Key) -> dict[str, Any]:
        index, step = key
        # By NumPy: torch would wake all its threads for this small copy.
        image = torch.from_numpy(self.images.pixels(index).numpy().astype(np.float32) / np.float32(255))
        category = self.images.categories.index(self.images.samples[index].category)
        item: dict[str, Any] = {"image": image, "category": category, "index": index}
        if self.view is not None:
            generator = torch.Generator().manual_seed(mix(self.seed, Salt.VIEW, step, index))
            item["views"] = self.view(image, generator)
        return item


class Plan(Sampler[list[Key]]):
    """The keys of one batch after another, made when they are needed.

    Args:
        steps: Numbers of the steps.
        choose: Positions of the images of a step.
    """

    def __init__(self, steps: range, choose: Callable[[int], list[int]]) -> None:
        self.steps, self.choose = steps, choose

    def __iter__(self) -> Iterator[list[Key]]:
        for step in self.steps:
            yield [(index, step) for index in self.choose(step)]

    def __len__(self) -> int:
        return len(self.steps)


def batches(reader: Reader, plan: Plan, workers: int = 0) -> DataLoader[dict[str, Any]]:
    """Batches of a reader's items, by name, in the order of a plan."""
    # A generator of its own: reading images must not change what a method draws next.
    own = torch.Generator().manual_seed(0)
    return DataLoader(reader, batch_sampler=plan, num_workers=workers, generator=own)
