"""Which images a step shows: every image equally often, every product in a balanced batch, each process its share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import kdlib as kd
from kdlib.contract import Batch, Phase
from kdlib.runtime import Runtime
from kdlib.training import loader
from kdlib.training.order import shuffled, shuffled_evenly

CPU = Runtime(device=torch.device("cpu"))


@pytest.fixture
def images(tmp_path: Path) -> kd.data.ImageSet:
    return tiny.normal(tmp_path / "images", 7)


def test_every_image_is_seen_equally_often() -> None:
    drawn = [i for step in range(14) for i in shuffled(7, 3, step, seed=1)]
    assert sorted(drawn) == sorted(list(range(7)) * 6)
    epochs = [tuple(drawn[i : i + 7]) for i in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs) and len(set(epochs)) == 6
    assert shuffled(7, 3, 5, seed=1) == drawn[15:18] != shuffled(7, 3, 5, seed=2)


class Process:
    """One of two processes on this machine."""

    num_processes, process_index, local_process_index = 2, 0, 0

    def __init__(self, rank: int) -> None:
        self.process_index = self.local_process_index = rank


def a_phase(batch_size: int, **settings: Any) -> Phase:
    return Phase(
        name="any", parameters=[], optimiser=torch.optim.SGD, loss=dict, steps=3, batch_size=batch_size, **settings
    )  # type: ignore[arg-type]


def test_processes_share_each_batch(images: kd.data.ImageSet) -> None:
    shares = []
    for rank in range(2):
        source = loader.TrainingImages(torch.nn.Identity(), images, 4, CPU, cache=False, processes=Process(rank))  # type: ignore[arg-type]
        shares.append([batch.image for batch in source.training(a_phase(5), range(3), 0)])
        with pytest.raises(ValueError, match="batch size is 1, fewer than the 2 processes"):
            list(source.training(a_phase(1), range(3), 0))
    assert [[len(image) for image in share] for share in shares] == [[2, 2, 2], [2, 2, 2]]
    assert not any(torch.equal(a, b) for ours, theirs in zip(*shares, strict=True) for a in ours for b in theirs)


GROUPS = [[0, 1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11]]


@pytest.mark.parametrize("size", [3, 4, 8, 16])
def test_balanced_batches_hold_every_group_and_see_every_image(size: int) -> None:
    batches = [shuffled_evenly(GROUPS, size, step, seed=2) for step in range(60)]
    for batch in batches:
        counts = [sum(i in group for i in batch) for group in GROUPS]
        assert len(batch) == size and max(counts) - min(counts) <= 1
    drawn = [i for batch in batches for i in batch]
    for group in GROUPS:
        counts = [drawn.count(i) for i in group]
        assert max(counts) - min(counts) <= 1 and min(counts) > 0


def test_batches_smaller_than_the_number_of_groups_take_turns() -> None:
    drawn = [i for step in range(30) for i in shuffled_evenly(GROUPS, 2, step, seed=0)]
    counts = [sum(i in group for i in drawn) for group in GROUPS]
    assert counts == [20, 20, 20] and set(drawn) == set(range(12))


def test_balanced_batches_are_a_function_of_seed_and_step() -> None:
    one = [shuffled_evenly(GROUPS, 6, step, seed=2) for step in (3, 4)]
    assert one == [shuffled_evenly(GROUPS, 6, step, seed=2) for step in (3, 4)] and one[0] != one[1]
    assert one[0] != shuffled_evenly(GROUPS, 6, 3, seed=3)


def test_processes_share_balanced_batches(tmp_path: Any) -> None:
    images = tiny.data(tmp_path, "bottle", "cable", train=6).train

    def kinds(process: Any) -> list[list[int]]:
        source = loader.TrainingImages(torch.nn.Identity(), images, 4, CPU, cache=False, processes=process)
        return [batch.category.tolist() for batch in source.training(a_phase(4, balanced=True), range(8), 0)]

    assert all(sorted(batch) == [0, 0, 1, 1] for batch in kinds(None))
    shares = [kinds(Process(rank)) for rank in range(2)]
    assert all(sorted(a + b) == [0, 0, 1, 1] for a, b in zip(*shares, strict=True))
    assert all({kind for batch in share for kind in batch} == {0, 1} for share in shares)


def test_balanced_training(tmp_path: Any) -> None:
    images = tiny.data(tmp_path, "bottle", "cable", train=6).train
    seen: list[list[int]] = []
    model = tiny.build("snl", balanced=True, steps=2)
    plain = model.loss

    def watched(batch: Batch) -> Any:
        seen.append(sorted(batch.category.tolist()))
        return plain(batch)

    model.loss = watched  # type: ignore[method-assign]
    tiny.fit(model, images)
    assert seen == [[0, 0, 1, 1]] * 2
