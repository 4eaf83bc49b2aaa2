"""What every data set becomes here: image sets, and the three splits train, calib and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdlib.data.errors import DatasetError, check_known
from kdlib.data.memory import Memory
from kdlib.data.reading import WHITE, open_image, resize_image, resize_mask
from kdlib.data.samples import Sample, check_files, fingerprint, open_sample


class Item(TypedDict):
    """One element of an `ImageSet`; a `DataLoader` stacks items into batches of the same keys."""

    image: Tensor  # float32 RGB [3, H, W] in [0, 1]
    mask: Tensor  # bool [1, H, W], True on the defect
    label: int  # 0 normal, 1 anomalous
    category: int  # position in ImageSet.categories
    index: int  # position in the ImageSet


class ImageSet(Dataset[Item]):
    """Images of one or more categories, read from disk when asked for and resized to one working size.

    Normal images have an all-False mask. So have anomalous images for which no mask exists: see `has_masks`.

    Args:
        samples: The images on disk.
        categories: The names that number the categories.
        size: Height and width in pixels.
        white: The value of 16-bit grey files that becomes white; `None`: 65535.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        *,
        categories: Sequence[str],
        size: tuple[int, int],
        white: int | None = None,
    ) -> None:
        self.samples = tuple(samples)
        self.categories = tuple(categories)
        self.size = size
        self.white = white
        self._memory = Memory(0)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        """Read one image and its mask, by NumPy: torch would wake all its threads for these small copies.

        Raises:
            DatasetError: A file is missing or damaged, or the mask has another size than its image.
        """
        index = range(len(self))[index]
        sample = self.samples[index]
        pixels, mask = self._read(sample)
        return Item(
            image=torch.from_numpy(pixels.numpy().astype(np.float32) / np.float32(255)),
            mask=torch.from_numpy(mask.numpy().copy()),
            label=sample.label,
            category=self.categories.index(sample.category),
            index=index,
        )

    def __repr__(self) -> str:
        height, width = self.size
        return f"ImageSet({len(self)} images, {self.labels.sum()} anomalous, {height} x {width}, {self.categories})"

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """0 normal, 1 anomalous, [N]."""
        return np.array([sample.label for sample in self.samples], dtype=np.int64)

    @property
    def has_masks(self) -> bool:
        """Whether pixel metrics make sense: there are anomalous images, and each of them has a mask."""
        masks = [sample.mask_path is not None for sample in self.samples if sample.label]
        return bool(masks) and all(masks)

    def pixels(self, index: int) -> Tensor:
        """One image without its mask, uint8 [3, H, W]; a `DatasetError` if the file is missing or damaged."""
        path = self.samples[index].path
        pixels = self._memory.get(path)
        if pixels is None:
            pixels = resize_image(open_image(path, self.white), self.size)
            self._memory.keep(path, pixels)
        return pixels.clone()

    def of(self, category: str) -> ImageSet:
        """The images of one category; `categories`, and so the category numbers, stay as they are."""
        check_known("category", category, self.categories)
        return self._with(sample for sample in self.samples if sample.category == category)

    def subset(self, indices: Iterable[int]) -> ImageSet:
        """The images at these positions, in this order."""
        return self._with(self.samples[int(i)] for i in indices)

    def cached(self, budget: int = 2**30) -> ImageSet:
        """The same set, which keeps images in memory as bytes after their first use (256 x 256: 0.2 MB each).

        Sets made from it by `of` and `subset` share the memory.

        Args:
            budget: Bytes in memory at most, in all processes that load data together; what does not fit is read again.
        """
        images = self._with(self.samples)
        images._memory = Memory(budget)
        return images

    def check(self) -> None:
        """Read all files before a long training; a `DatasetError` names all that are missing, damaged or do not fit."""
        check_files(self.samples, self.white)

    def fingerprint(self) -> str:
        """A hash of all that the set gives, 32 hexadecimal digits; it reads every file once.

        Names of files and folders do not count, their bytes and their order do: a copy in another place has the same.
        """
        return fingerprint(self.samples, self.size, self.white or WHITE)

    def _with(self, samples: Iterable[Sample]) -> ImageSet:
        images = copy(self)
        images.samples = tuple(samples)
        return images

    def _read(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Pixels uint8 [3, H, W] and mask bool [1, H, W], which must not be changed."""
        no_mask = torch.from_numpy(np.zeros((1, *self.size), dtype=np.bool_))
        pixels = self._memory.get(sample.path)
        mask = self._memory.get(sample.mask_path) if sample.mask_path else no_mask
        if pixels is None or mask is None:
            image, decoded = open_sample(sample, self.white)
            pixels = resize_image(image, self.size)
            mask = no_mask if decoded is None else resize_mask(decoded, self.size)
            self._memory.keep(sample.path, pixels)
            if sample.mask_path:
                self._memory.keep(sample.mask_path, mask)
        return pixels, mask


@dataclass(frozen=True)
class Splits:
    """A data set ready for use: `train` and `calib` hold normal images only, `test` both kinds (or nothing)."""

    train: ImageSet
    calib: ImageSet
    test: ImageSet
    categories: tuple[str, ...]
    licence: str

    def of(self, category: str) -> Splits:
        """One category alone: the three sets keep their category numbers, `categories` becomes `(category,)`."""
        train, calib, test = (part.of(category) for part in (self.train, self.calib, self.test))
        return Splits(train, calib, test, categories=(category,), licence=self.licence)

    def check(self) -> None:
        """Read all files of the three sets; see `ImageSet.check`."""
        check_files(self.train.samples + self.calib.samples + self.test.samples, self.train.white)


def join(parts: Sequence[Splits]) -> Splits:
    """Put several data sets together, for one model for all categories. Their category names must differ.

    Raises:
        DatasetError: Nothing to join, a repeated category or image, or different sizes or white levels.
    """
    if not parts:
        raise DatasetError("join() got an empty list; give it at least one Splits.")
    categories = tuple(name for part in parts for name in part.categories)
    if twice := _repeated(categories):
        raise DatasetError(f"Categories {twice} occur in more than one part; rename their folders so that all differ.")
    sizes = {part.train.size for part in parts}
    if len(sizes) > 1:
        raise DatasetError(f"The parts have different image sizes {sorted(sizes)}; load all with the same size=...")
    whites = {part.train.white for part in parts}
    if len(whites) > 1:
        raise DatasetError(f"The parts have different white levels {whites}; load all with the same white=...")

    def joined(sets: Iterable[ImageSet]) -> ImageSet:
        samples = (sample for one in sets for sample in one.samples)
        return ImageSet(samples, categories=categories, size=parts[0].train.size, white=parts[0].train.white)

    train, calib = joined(part.train for part in parts), joined(part.calib for part in parts)
    test = joined(part.test for part in parts)
    paths = [str(sample.path) for images in (train, calib, test) for sample in images.samples]
    if repeated := _repeated(paths):
        raise DatasetError(f"{len(repeated)} images occur twice, such as {repeated[0]}. Keep each in one place.")
    licence = "; ".join(dict.fromkeys(part.licence for part in parts if part.licence))
    return Splits(train, calib, test, categories=categories, licence=licence)


def _repeated(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)
