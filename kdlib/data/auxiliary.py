"""Images of something else than the product, by name: `load_auxiliary("textures+photographs")`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kdlib.data import load
from kdlib.data.errors import DatasetError
from kdlib.data.generated import offered
from kdlib.data.layouts import fitting
from kdlib.data.listing import folders_with_images, image_files
from kdlib.data.reading import open_image
from kdlib.data.records import ImageSet
from kdlib.data.samples import Sample
from kdlib.data.textures import Drawn, Texture
from kdlib.files import expanded

DEFAULT = "textures"
JOIN = "+"
_TEXTURES = 256
_CUTS = 40  # per photograph
# What scikit-image brings along and is a photograph; whatever else it offers would be downloaded.
_PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png"),
    *("hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg"),
)


class Cut(Drawn):
    """A square out of a photograph, at a place and of a side that its number decides."""

    def draw(self, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        rng = np.random.default_rng(self.number)
        image = open_image(self.path)
        side = int(min(image.size) * rng.uniform(0.4, 1))
        left, top = (int(rng.integers(0, length - side + 1)) for length in image.size)
        return np.asarray(image.crop((left, top, left + side, top + side)).resize(size[::-1]))

    def identity(self) -> str:
        return f"cut {self.number} {hashlib.sha256(self.path.read_bytes()).hexdigest()}"


class Auxiliary(ImageSet):
    """Images that are drawn, and images in files."""

    def pixels(self, index: int) -> Tensor:
        """Pixels uint8 [3, H, W] of the image at this position."""
        sample = self.samples[index]
        return self._drawn(sample) if isinstance(sample, Drawn) else super().pixels(index)

    def fingerprint(self) -> str:
        """A hash of all that the set gives; drawn images are in no file."""
        drawn = [sample.identity() for sample in self.samples if isinstance(sample, Drawn)]
        files = self._with(sample for sample in self.samples if not isinstance(sample, Drawn))
        rest = ImageSet.fingerprint(files)
        return hashlib.blake2b(f"{drawn} {rest}".encode(), digest_size=16).hexdigest()

    def _read(self, sample: Sample) -> tuple[Tensor, Tensor]:
        if isinstance(sample, Drawn):
            return self._drawn(sample), torch.zeros(1, *self.size, dtype=torch.bool)
        return super()._read(sample)

    def _drawn(self, sample: Drawn) -> Tensor:
        pixels = self._memory.get(sample)
        if pixels is None:
            pixels = torch.from_numpy(sample.draw(self.size).transpose(2, 0, 1).copy())
            self._memory.keep(sample, pixels)
        return pixels.clone()


def load_auxiliary(what: str | Path = DEFAULT, size: tuple[int, int] = (256, 256)) -> ImageSet:
    """Images of something else than the product.

    Args:
        what: `textures` (rendered), `photographs` (those of scikit-image, where that is installed), a folder of images,
            the root of a data set, of which the normal training images are taken; or several with `+` between them.
        size: Height and width in pixels.

    Raises:
        ValueError: If there are no such images.
    """
    samples = [sample for name in str(what).split(JOIN) for sample in _samples(name.strip(), size)]
    categories = tuple(dict.fromkeys(sample.category for sample in samples))
    return Auxiliary(samples, categories=categories, size=size)


def photographs() -> list[Path]:
    """The photographs that scikit-image has on this machine.

    Raises:
        DatasetError: If it is not installed.
    """
    spec = find_spec("skimage")
    places = (spec and spec.submodule_search_locations) or []
    found = [path for place in places for name in _PHOTOGRAPHS if (path := Path(place, "data", name)).is_file()]
    if not found:
        raise DatasetError(
            "there are no photographs: scikit-image, which brings some, is not installed; install it (pip install "
            "scikit-image), or take 'textures' or a folder of your own"
        )
    return found


def _samples(name: str, size: tuple[int, int]) -> Sequence[Sample]:
    if name == "textures":
        return [Texture(path=Path("texture"), category=name, number=number) for number in range(_TEXTURES)]
    if name == "photographs":
        return [Cut(path=path, category=name, number=n) for n in range(_CUTS) for path in photographs()]
    folder = expanded(name)
    if not offered(name) and folder.is_dir() and not fitting(folder):
        files = [file for place in folders_with_images(folder) for file in image_files(place)]
        if files:  # a folder for each kind, as DTD and ImageNet have
            return [Sample(path=file, category=folder.name) for file in files]
    return load(name, size=size, calib_share=0).train.samples
