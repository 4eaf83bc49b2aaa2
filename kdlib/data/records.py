"""What every data set becomes here: samples, image sets, and the three splits train, calib and test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kdlib.data.reading import DatasetError, open_image, open_mask, resize_image, resize_mask


class Item(TypedDict):
    """One element of an `ImageSet`; a `DataLoader` stacks items into batches of the same keys."""

    image: Tensor  # float32 RGB [3, H, W] in [0, 1]
    mask: Tensor  # bool [1, H, W], True on the defect
    label: int  # 0 normal, 1 anomalous
    category: int  # position in ImageSet.categories
    index: int  # position in the ImageSet


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One image on disk. The label comes from the folder or list it was found in, never from its mask."""

    path: Path
    category: str
    defect: str = "normal"
    label: int = 0
    mask_path: Path | None = None


class ImageSet(Dataset[Item]):
    """Images of one or more categories, read from disk when asked for and resized to one working size.

    Normal images have an all-False mask. So have anomalous images for which no mask exists: see `has_masks`.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        *,
        categories: Sequence[str],
        size: tuple[int, int],
        memory: dict[Sample, tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.samples = tuple(samples)
        self.categories = tuple(categories)
        self.size = size
        self._memory = memory

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        """Read one image and its mask, by NumPy: torch would wake all its threads for these small copies.

        Raises:
            DatasetError: A file is missing or damaged, or the mask has another size than its image.
        """
        index = range(len(self))[index]
        sample = self.samples[index]
        pixels, mask = (tensor.numpy() for tensor in self._pixels(sample))
        return Item(
            image=torch.from_numpy(pixels.astype(np.float32) / np.float32(255)),
            mask=torch.from_numpy(mask.copy()),
            label=sample.label,
            category=self.categories.index(sample.category),
            index=index,
        )

    def pixels(self, index: int) -> Tensor:
        """The image at this position, without its mask, uint8 [3, H, W]."""
        return resize_image(open_image(self.samples[index].path), self.size)

    def __repr__(self) -> str:
        height, width = self.size
        return f"ImageSet({len(self)} images, {self.labels.sum()} anomalous, {height} x {width}, {self.categories})"

    def __getstate__(self) -> dict[str, Any]:
        """A copy for another process starts with an empty memory: sending it would cost more than reading again."""
        return self.__dict__ | {"_memory": None if self._memory is None else {}}

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """0 normal, 1 anomalous, [N]."""
        return np.array([sample.label for sample in self.samples], dtype=np.int64)

    @property
    def has_masks(self) -> bool:
        """Whether pixel metrics make sense: there are anomalous images, and each of them has a mask."""
        masks = [sample.mask_path is not None for sample in self.samples if sample.label]
        return bool(masks) and all(masks)

    def of(self, category: str) -> ImageSet:
        """The images of one category; `categories`, and so the category numbers, stay as they are.

        Raises:
            DatasetError: The category is unknown.
        """
        check_known("category", category, self.categories)
        return self._with(sample for sample in self.samples if sample.category == category)

    def subset(self, indices: Iterable[int]) -> ImageSet:
        """The images at these positions, in this order."""
        return self._with(self.samples[int(i)] for i in indices)

    def cached(self) -> ImageSet:
        """The same set, which keeps every image in memory as bytes after its first use (256 x 256: 0.26 MB each).

        For loops that pass over a small set many times. Sets made from it by `of` and `subset` share the memory.
        """
        return ImageSet(self.samples, categories=self.categories, size=self.size, memory={})

    def _with(self, samples: Iterable[Sample]) -> ImageSet:
        return ImageSet(samples, categories=self.categories, size=self.size, memory=self._memory)

    def _pixels(self, sample: Sample) -> tuple[Tensor, Tensor]:
        if self._memory is None:
            return read_sample(sample, self.size)
        if sample not in self._memory:
            self._memory[sample] = read_sample(sample, self.size)
        return self._memory[sample]


@dataclass(frozen=True)
class Splits:
    """A data set ready for use: `train` and `calib` hold normal images only, `test` both kinds (or nothing)."""

    train: ImageSet
    calib: ImageSet
    test: ImageSet
    categories: tuple[str, ...]
    licence: str

    def of(self, category: str) -> Splits:
        """One category alone: the three sets keep their category numbers, `categories` becomes `(category,)`.

        Raises:
            DatasetError: The category is unknown.
        """
        train, calib, test = (part.of(category) for part in (self.train, self.calib, self.test))
        return Splits(train, calib, test, categories=(category,), licence=self.licence)


def join(parts: Sequence[Splits]) -> Splits:
    """Put several data sets together, for one model for all categories. Their category names must differ.

    Raises:
        DatasetError: Nothing to join, a category that occurs twice, or different image sizes.
    """
    if not parts:
        raise DatasetError("join() got an empty list; give it at least one Splits.")
    categories = tuple(name for part in parts for name in part.categories)
    twice = sorted({name for name in categories if categories.count(name) > 1})
    if twice:
        raise DatasetError(f"Categories {twice} occur in more than one part; rename their folders so that all differ.")
    sizes = {part.train.size for part in parts}
    if len(sizes) > 1:
        raise DatasetError(f"The parts have different image sizes {sorted(sizes)}; load all with the same size=...")

    def joined(sets: Iterable[ImageSet]) -> ImageSet:
        samples = (sample for one in sets for sample in one.samples)
        return ImageSet(samples, categories=categories, size=parts[0].train.size)

    return Splits(
        train=joined(part.train for part in parts),
        calib=joined(part.calib for part in parts),
        test=joined(part.test for part in parts),
        categories=categories,
        licence="; ".join(dict.fromkeys(part.licence for part in parts if part.licence)),
    )


def read_sample(sample: Sample, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Read one sample at `size` = (H, W): pixels uint8 [3, H, W] and mask bool [1, H, W].

    A mask describes the image as a viewer shows it, after its EXIF rotation, and has exactly that size in the file.

    Raises:
        DatasetError: A file is missing or damaged, or the mask has another size than its image.
    """
    image = open_image(sample.path)
    if sample.mask_path is None:
        return resize_image(image, size), torch.from_numpy(np.zeros((1, *size), dtype=np.bool_))
    mask = open_mask(sample.mask_path)
    if mask.shape != (image.height, image.width):
        raise DatasetError(
            f"Mask {sample.mask_path} is {mask.shape[1]} x {mask.shape[0]} (width x height), its image {sample.path} "
            f"is {image.width} x {image.height}. Save the mask in the size and orientation in which the image is shown."
        )
    return resize_image(image, size), resize_mask(mask, size)


def check_known(what: str, name: str, known: Sequence[str], hint: str = "") -> None:
    """Raise a `DatasetError` that lists the known names, and the closest first, unless `name` is one of them."""
    if name in known:
        return
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    raise DatasetError(f"Unknown {what} {name!r}.{guess} Known: {', '.join(known)}.{hint}")
