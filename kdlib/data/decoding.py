"""From a file to a complete picture, by its content and not by its name.

Files are read into memory first: Pillow maps uncompressed TIFFs from a path with the wrong size when they are turned.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from kdlib.data.errors import DatasetError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")  # an MPO is opened as JPEG
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)
_STRICT = "kdlib_strict"


class Decoded(NamedTuple):
    """A picture as a viewer shows it, with what its file says beyond the pixels."""

    image: Image.Image
    lossy: bool  # compression leaves faint grey around edges
    deep_colour: bool  # the file has 16 bits for each of several channels, of which Pillow keeps the upper 8


def decode(source: Path | bytes) -> Decoded:
    """Decode a whole image file, given by its path or its bytes, and turn it upright (EXIF).

    Of a TIFF with several pages the first is read.

    Raises:
        DatasetError: The file is missing, truncated, damaged, animated, too large, or of a format that is not read.
    """
    with _named_errors(source):
        data = source if isinstance(source, bytes) else _bytes(source)
        with Image.open(BytesIO(data), formats=FORMATS) as file:
            deep = len(file.getbands()) > 1 and any(";16" in str(tile[3]) for tile in file.tile)
            lossy = file.format in ("JPEG", "MPO") or file.info.get("compression") in ("jpeg", "tiff_jpeg")
            lossy = lossy or (file.format == "WEBP" and _is_lossy_webp(data))
            frames = getattr(file, "n_frames", 1)
            if frames > 1 and file.format in ("PNG", "WEBP", "GIF"):
                raise ValueError(f"it is an animation of {frames} frames; save the one that is meant")
            _load(file)
            return Decoded(ImageOps.exif_transpose(file), lossy, deep)


def _is_lossy_webp(data: bytes) -> bool:
    """Whether a WebP's pixels are compressed with loss: a colour profile or transparency may stand before them."""
    at = 12
    while at < len(data) and data[at : at + 4] not in (b"VP8 ", b"VP8L"):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + size + size % 2
    return data[at : at + 4] == b"VP8 "


class _StrictDecoder:
    """Pillow's own decoder, which raises where the data is damaged, and is in `unfinished` until it comes to its end.

    Pillow lets a half picture pass as a whole one where any package has set `ImageFile.LOAD_TRUNCATED_IMAGES`, for all
    threads at once; here that setting is neither changed nor obeyed.
    """

    def __init__(self, mode: str, name: str, args: Any, unfinished: list[Any], *config: Any) -> None:
        self._decoder: Any = Image._getdecoder(mode, name, args, config)
        self._unfinished = unfinished
        unfinished.append(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def decode(self, data: bytes) -> tuple[int, int]:
        consumed, status = self._decoder.decode(data)
        if consumed < 0 or self._decoder.pulls_fd:
            if status < 0:
                raise OSError("broken data in the image file")
            self._unfinished.remove(self)
        return consumed, status


Image.register_decoder(_STRICT, _StrictDecoder)  # type: ignore[arg-type]


def _load(file: ImageFile) -> None:
    """Decode all pixels, or raise."""
    unfinished: list[Any] = []
    if isinstance(file, JpegImageFile):
        file.load_read = file.fp.read  # type: ignore  # its own method invents an end of the file
    if file.tile and file.tile[0][0] != "libtiff":  # that one is strict, and must keep its name
        file.tile = [tile._replace(codec_name=_STRICT, args=(tile[0], tile[3], unfinished)) for tile in file.tile]
    file.load()
    if unfinished:
        raise OSError("image file is truncated")


def _bytes(path: Path) -> bytes:
    if path.exists() and not path.is_file():  # to open a pipe would wait for ever
        raise IsADirectoryError("it is a folder, a pipe or a device")
    return path.read_bytes()


@contextmanager
def _named_errors(source: Path | bytes) -> Iterator[None]:
    name = "The image" if isinstance(source, bytes) else str(source)
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(f"{name} is missing. Replace the file by an intact copy or remove it.") from error
    except Image.DecompressionBombError as error:
        raise DatasetError(
            f"{name} is larger than Pillow reads without being asked to ({error}). Save it smaller, or raise "
            f"PIL.Image.MAX_IMAGE_PIXELS (now {Image.MAX_IMAGE_PIXELS:,}; twice that is the limit) if you trust it."
        ) from error
    except _UNREADABLE as error:
        foreign = isinstance(error, UnidentifiedImageError)
        problem = f"its content is none of {', '.join(FORMATS)}" if foreign else error
        raise DatasetError(
            f"{name} cannot be read as an image ({problem}). Replace the file by an intact copy or remove it."
        ) from error
