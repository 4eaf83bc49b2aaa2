"""Image sets of trials: where they are, and which, to the byte."""

from __future__ import annotations

import hashlib
from typing import Any

from accelerate.utils import broadcast_object_list

from kdlib import data
from kdlib.data.generated import offered
from kdlib.data.records import Splits
from kdlib.files import expanded
from kdlib.runtime import processes


def normalised(root: str) -> str:
    """The place of a data set in one spelling, `x` and `x/` alike; names of rendered sets stay."""
    return root if offered(root) else str(expanded(root).resolve())


def load(root: str, categories: list[str] | None, **options: Any) -> Splits:
    """See `kdlib.data.load`; where several processes share a run, the first renders what is missing."""
    with processes().main_process_first():
        return data.load(root, categories, **options)


def fingerprints(splits: Splits) -> dict[str, str]:
    """Of every category, a hash over the files of all its images and masks; computed by the first process."""
    computed: list[dict[str, str]] = [{}]
    if processes().is_main_process:
        for category in splits.categories:
            own = splits.of(category)
            prints = " ".join(images.fingerprint() for images in (own.train, own.calib, own.test))
            computed[0][category] = hashlib.sha256(prints.encode()).hexdigest()[:16]
    broadcast_object_list(computed)
    return computed[0]
