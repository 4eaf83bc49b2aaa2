"""Memory that is freed stays with the process: no page is cleared twice."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
PROGRAM = """
import resource
import torch
from kdlib.allocation import keep_freed_memory
from kdlib.runtime import choose

choose("cpu")
for repeat in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, int(keep_freed_memory()))
"""
PAGES = 10 * 40_000_000 // 4096


def measured(**settings: str) -> tuple[int, int]:
    """Pages that are cleared for ten tensors of 40 MB, and whether memory is kept, in a process of its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=own | settings, capture_output=True, check=True, text=True
    )
    cleared, kept = map(int, found.stdout.split())
    return cleared, kept


def test_blocks_are_used_again() -> None:
    cleared, kept = measured()
    assert kept and cleared < PAGES / 10


def test_settings_of_the_environment_are_left_alone() -> None:
    _, kept = measured(MALLOC_TRIM_THRESHOLD_="131072")  # pages may be large, so that their number says nothing here
    assert not kept
