"""Image sets of trials: where they are, and which, to the byte."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from kdlib import data
from kdlib.data.generated import generated
from kdlib.data.records import Splits
from kdlib.runtime import processes


def normalised(root: str) -> str:
    """The place of a data set in one spelling, `x` and `x/` alike; names of rendered sets stay."""
    return root if generated(root) else str(Path(root).expanduser().resolve())


def load(root: str, categories: list[str] | None, *, layout: str = "auto", size: int) -> Splits:
    """The image sets; where several processes share a run, the first renders what is missing."""
    with processes().main_process_first():
        return data.load(root, categories, layout=layout, size=size)


def fingerprints(splits: Splits) -> dict[str, str]:
    """Of every category, a hash over the files of all its images and masks; computed by the first process."""
    computed: list[Any] = [None]
    if processes().is_main_process:
        computed[0] = {category: _fingerprint(splits.of(category)) for category in splits.categories}
    broadcast_object_list(computed)
    result: dict[str, str] = computed[0]
    return result


def _fingerprint(splits: Splits) -> str:
    parts = [images.fingerprint() for images in (splits.train, splits.calib, splits.test)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
