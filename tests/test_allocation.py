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
from kdlib.runtime import choose

choose("cpu")
for repeat in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize(("settings", "kept"), [({}, True), ({"MALLOC_TRIM_THRESHOLD_": "131072"}, False)])
def test_blocks_are_used_again_unless_the_environment_has_settings_of_its_own(
    settings: dict[str, str], kept: bool
) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=own | settings, capture_output=True, check=True, text=True
    )
    pages = 10 * 40_000_000 // 4096
    assert (int(found.stdout) < pages / 10) is kept
