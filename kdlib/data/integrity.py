"""What can be said about the files of a data set as a whole: what they hold, and whether all of them can be used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from kdlib.data.decoding import verified
from kdlib.data.errors import DatasetError
from kdlib.data.listing import image_files
from kdlib.data.samples import Sample, open_sample

_THREADS = 4  # hashing and decoding release the interpreter
T = TypeVar("T")
R = TypeVar("R")


def fingerprint(samples: Iterable[Sample], *facts: object) -> str:
    """A hash of what samples hold, 32 hexadecimal digits: the bytes of images and masks, labels, kinds of defect.

    Folders and names of files do not count, so a copy of a data set on another machine has the same one; the order of
    the samples, which training depends on, does. An image that is stored again with other bytes changes it.

    Args:
        samples: In the order in which they are used.
        facts: What else matters, such as the working size.

    Raises:
        DatasetError: A file is missing.
    """
    lines = [json.dumps(facts), *_in_threads(_describe, list(samples))]
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def check_files(samples: Iterable[Sample]) -> None:
    """Find files that cannot be used, before anything trains; images without masks are not decoded where that helps.

    Raises:
        DatasetError: Files are missing or damaged, or masks have another size than their images; all are named.
    """
    unique = list(dict.fromkeys(samples))
    problems = [problem for problem in _in_threads(_problem, unique) if problem]
    if problems:
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        listed = "\n  ".join(problems[:10])
        raise DatasetError(f"{len(problems)} of {len(unique)} images cannot be used:\n  {listed}{more}")


def _describe(sample: Sample) -> str:
    files = [sample.path]
    if sample.mask_path is not None:
        files += image_files(sample.mask_path) if sample.mask_path.is_dir() else [sample.mask_path]
    return json.dumps([sample.category, sample.defect, sample.label, *map(_digest, files)])


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(2**20):
                digest.update(block)
            return digest.hexdigest()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error}). Replace the file by an intact copy.") from error


def _problem(sample: Sample) -> str:
    try:
        if sample.mask_path is not None or not verified(sample.path):
            open_sample(sample)
    except DatasetError as error:
        return str(error)
    return ""


def _in_threads(work: Callable[[T], R], values: Sequence[T]) -> list[R]:
    """The results of `work` in order."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(work, values))
