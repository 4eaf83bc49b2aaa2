"""Sixty real kills, four for each method, at any moment: nothing is lost. Run by `make long`."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny

import kdlib as kd
from kdlib.methods import METHODS

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="a child that has imported everything needs fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
KILLS = 4


def train(name: str, images: kd.data.ImageSet, state: Path) -> None:
    tiny.fit(tiny.build(name, steps=40), images, seed=3, state=state, save_every=0)
    os._exit(0)


@pytest.mark.parametrize("name", METHODS)
def test_killed_at_any_moment(name: str, tmp_path: Path) -> None:
    images, whole = tiny.normal(tmp_path / "images"), tiny.build(name, steps=40)
    start = time.perf_counter()
    expected = tiny.fit(whole, images, seed=3)
    seconds, moments, fork = time.perf_counter() - start, random.Random(name), multiprocessing.get_context("fork")
    kills = 0
    for run in range(10 * KILLS):
        if kills == KILLS:
            break
        state = tmp_path / f"run{run}"
        while kills < KILLS:
            child: Any = fork.Process(target=train, args=(name, images, state))
            child.start()
            child.join(moments.uniform(0.05, 0.7) * seconds)
            if child.exitcode is not None:
                break  # complete: the next run begins
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            kills += 1
        again = tiny.build(name, steps=40)
        assert tiny.fit(again, images, seed=3, state=state).rows == expected.rows
        assert tiny.equal(again, whole)
    assert kills == KILLS
