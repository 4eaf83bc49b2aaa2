"""From a file to a complete picture, by its content and not by its name.

Files are read into memory first: Pillow maps uncompressed TIFFs from a path with the wrong size when they are turned.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from kdlib.data.errors import DatasetError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")  # an MPO is opened as JPEG
_ANIMATED = ("PNG", "WEBP", "GIF")
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)
_STRICT = "kdlib_strict"


@dataclass(frozen=True, kw_only=True)
class Decoded:
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
        data = _bytes(source)
        with Image.open(BytesIO(data), formats=FORMATS) as file:
            deep = len(file.getbands()) > 1 and any(";16" in str(tile[3]) for tile in file.tile)
            lossy = file.format in ("JPEG", "MPO") or (file.format == "WEBP" and b"VP8 " in data[:64])
            _refuse_animation(file)
            _load(file)
            return Decoded(image=ImageOps.exif_transpose(file), lossy=lossy, deep_colour=deep)


def verified(path: Path) -> bool:
    """Find damage faster than by decoding all: PNG by its checksums, JPEG at an eighth of its size.

    Returns:
        Whether that was possible; files of other formats must be decoded.

    Raises:
        DatasetError: As `decode` raises it.
    """
    with _named_errors(path), Image.open(BytesIO(_bytes(path)), formats=FORMATS) as file:
        _refuse_animation(file)
        if file.format == "PNG":
            file.verify()
        elif isinstance(file, JpegImageFile):
            file.draft(None, (file.width // 8, file.height // 8))
            _load(file)
        return file.format == "PNG" or isinstance(file, JpegImageFile)


class _Tally:
    """How many parts of a picture were begun and how many are complete."""

    def __init__(self) -> None:
        self.begun = self.complete = 0


class _StrictDecoder:
    """Pillow's own decoder, which counts the parts that it decodes completely and raises where the data is damaged.

    Pillow lets a half picture pass as a whole one where any package has set `ImageFile.LOAD_TRUNCATED_IMAGES`, for all
    threads at once; here that setting is neither changed nor obeyed.
    """

    def __init__(self, mode: str, name: str, args: Any, tally: _Tally, *config: Any) -> None:
        self._decoder: Any = Image._getdecoder(mode, name, args, config)
        self._tally = tally
        tally.begun += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def decode(self, data: bytes) -> tuple[int, int]:
        consumed, status = self._decoder.decode(data)
        if consumed < 0 or self._decoder.pulls_fd:
            if status < 0:
                raise OSError("broken data in the image file")
            self._tally.complete += 1
        return consumed, status


Image.register_decoder(_STRICT, _StrictDecoder)  # type: ignore[arg-type]


def _load(file: ImageFile) -> None:
    """Decode all pixels, or raise."""
    tally = _Tally()
    if isinstance(file, JpegImageFile):
        file.load_read = file.fp.read  # type: ignore  # its own method invents an end of the file
    if file.tile and file.tile[0][0] != "libtiff":  # that one is strict, and must keep its name
        file.tile = [tile._replace(codec_name=_STRICT, args=(tile[0], tile[3], tally)) for tile in file.tile]
    file.load()
    if tally.complete < tally.begun:
        raise OSError("image file is truncated")


def _refuse_animation(file: ImageFile) -> None:
    frames = getattr(file, "n_frames", 1) if file.format in _ANIMATED else 1
    if frames > 1:
        raise ValueError(f"it is an animation of {frames} frames; save the one that is meant")


def _bytes(source: Path | bytes) -> bytes:
    if isinstance(source, bytes):
        return source
    if source.exists() and not source.is_file():  # to open a pipe would wait for ever
        raise IsADirectoryError("it is a folder, a pipe or a device")
    return source.read_bytes()


@contextmanager
def _named_errors(source: Path | bytes) -> Iterator[None]:
    name = "The image" if isinstance(source, bytes) else str(source)
    try:
        yield
    except FileNotFoundError as error:
        raise DatasetError(f"{name} is missing. Replace the file by an intact copy or remove it.") from error
    except Image.DecompressionBombError as error:
        raise DatasetError(
            f"{name} is larger than Pillow reads without being asked to ({error}). Save it smaller or in parts; or, if "
            f"its source is trusted, raise PIL.Image.MAX_IMAGE_PIXELS (now {Image.MAX_IMAGE_PIXELS:,}; twice that is "
            f"the limit)."
        ) from error
    except _UNREADABLE as error:
        foreign = isinstance(error, UnidentifiedImageError)
        problem = f"its content is none of {', '.join(FORMATS)}" if foreign else error
        raise DatasetError(
            f"{name} cannot be read as an image ({problem}). Replace the file by an intact copy or remove it."
        ) from error
