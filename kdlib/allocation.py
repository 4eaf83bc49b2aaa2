"""Memory that is freed stays with the process, so that the next layer need not ask for it again.

The C library of most Linux systems returns large blocks to the system the moment they are free. A network on a
processor frees and asks for blocks of megabytes in every layer, and the system clears each page of them anew: up to
half of the time of a forward pass. Blocks below `KEPT` bytes, and as much free memory, are kept instead; what the
process needs at most stays nearly the same.

Source: `mallopt(3)`, the manual page.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import lru_cache

KEPT = 1 << 30
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of malloc.h
_OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


@lru_cache(maxsize=1)
def keep_freed_memory() -> bool:
    """Does so from now on in this process; says whether it could.

    It cannot on other systems or with another C library, and leaves alone what the environment has set.
    """
    if sys.platform != "linux" or any(name in os.environ for name in _OWN_SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, KEPT) for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD))
