"""One image on disk with what is known of it, how it is read, and what can be said about the files of many."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from kdlib.data.errors import DatasetError, printable
from kdlib.data.listing import image_files
from kdlib.data.reading import open_image, open_mask

_THREADS = 4  # hashing and decoding release the interpreter


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image on disk. The label comes from the folder or list it was found in, never from its mask.

    Attributes:
        path: The image.
        category: The product it shows.
        defect: The kind of defect, "normal" for none.
        label: 0 normal, 1 anomalous.
        mask_path: Its mask, or a folder of masks that are joined.
    """

    path: Path
    category: str
    defect: str = "normal"
    label: int = 0
    mask_path: Path | None = None


def open_sample(sample: Sample, white: int | None = None) -> tuple[Image.Image, npt.NDArray[np.bool_] | None]:
    """Decode an image, upright 8-bit RGB, and its mask [h, w], where it has one, at the size of the file.

    A mask describes the image as a viewer shows it, after its EXIF rotation, and has exactly that size in the file.
    """
    image = open_image(sample.path, white)
    if sample.mask_path is None:
        return image, None
    mask = open_mask(sample.mask_path)
    if mask.shape != (image.height, image.width):
        raise DatasetError(
            f"Mask {sample.mask_path} is {mask.shape[1]} x {mask.shape[0]} (width x height), its image {sample.path} "
            f"is {image.width} x {image.height}. Save the mask in the size and orientation in which the image is shown."
        )
    return image, mask


def check_files(samples: Iterable[Sample], white: int | None = None) -> None:
    """Read all files, before anything trains; a `DatasetError` names all that cannot be used.

    Warns of anomalous images whose mask shows no defect.
    """
    unique = list(dict.fromkeys(samples))
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(partial(_checked, white=white), unique))
    problems = [problem for problem, _ in found if problem]
    if empty := [str(sample.path) for sample, (_, blank) in zip(unique, found, strict=True) if blank]:
        text = f"{len(empty)} anomalous images have a mask without a defect, such as {empty[0]}. Mend or remove it."
        warnings.warn(printable(text), stacklevel=2)
    if problems:
        listed = "\n  ".join(problems[:10])
        more = f"\n  and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise DatasetError(f"{len(problems)} of {len(unique)} images cannot be used:\n  {listed}{more}")


def fingerprint(samples: Iterable[Sample], *facts: object) -> str:
    """A hash of what samples hold, in their order, and of further facts, 32 hexadecimal digits.

    What counts are the bytes of images and masks, labels, kinds of defect; not the names of files.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        lines = [json.dumps(facts), *pool.map(_described, samples)]
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def _checked(sample: Sample, white: int | None) -> tuple[str, bool]:
    """What is wrong with a sample's files, empty if nothing is; and whether it is anomalous with an empty mask."""
    try:
        _, mask = open_sample(sample, white)
    except DatasetError as error:
        return str(error), False
    return "", bool(sample.label) and mask is not None and not mask.any()


def _described(sample: Sample) -> str:
    files, mask = [sample.path], sample.mask_path
    if mask is not None:
        files += image_files(mask) if mask.is_dir() else [mask]
    return json.dumps([sample.category, sample.defect, sample.label, *map(_digest, files)])


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error}). Replace the file by an intact copy.") from error
