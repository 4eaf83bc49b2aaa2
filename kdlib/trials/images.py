"""Image sets before a trial: which they are, to the byte, and whether every file of them can be used."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list

from kdlib import data
from kdlib.data.generated import generated
from kdlib.data.records import ImageSet, Splits
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


def check(splits: Splits) -> None:
    """Reads every image and mask once.

    Raises:
        DatasetError: If a file is damaged, or a mask has another size than its image.
    """
    for images in (splits.train, splits.calib, splits.test):
        _check(images)


def _fingerprint(splits: Splits) -> str:
    whole = hashlib.sha256()
    for images in (splits.train, splits.calib, splits.test):
        whole.update(_hash(images).encode())
    return whole.hexdigest()[:16]


def _hash(images: ImageSet) -> str:
    if hasattr(images, "fingerprint"):
        return str(images.fingerprint())
    whole = hashlib.sha256()
    for sample in images.samples:
        whole.update(repr((sample.category, sample.defect, sample.label, sample.path.name)).encode())
        for path in (sample.path, sample.mask_path):
            if path is not None:
                whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _check(images: ImageSet) -> None:
    if hasattr(images, "check"):
        images.check()
        return
    for i in range(len(images)):
        images[i]
