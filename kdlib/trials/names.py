"""Names of categories, methods and variants as parts of paths and as text: they come from folders and list files."""

from __future__ import annotations

import hashlib
from collections.abc import Collection

_LONGEST = 80
_ALLOWED = " ._-+"
_WINDOWS = {"con", "prn", "aux", "nul", *(f"{device}{n}" for device in ("com", "lpt") for n in range(1, 10))}


def folder_name(name: str, reserved: Collection[str] = ()) -> str:
    """A name as a file or folder below another one, on every system: `bottle`, but `_____X-2f1c9a70` for `../../X`.

    What is not allowed becomes `_`, and part of a hash is added, so that two names never share a folder.
    """
    kept = "".join(letter if letter.isalnum() or letter in _ALLOWED else "_" for letter in name)
    kept = shortened(kept.strip(". "), _LONGEST)
    if kept == name and kept and kept.partition(".")[0].lower() not in _WINDOWS and kept not in reserved:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{kept}-{digest}"


def shortened(name: str, length: int) -> str:
    """The beginning of a name, of at most so many bytes in UTF-8."""
    return name.encode("utf-8")[:length].decode("utf-8", "ignore").strip()


def printable(name: str) -> str:
    r"""A name as it can be printed and written in UTF-8: of a file name that is no UTF-8, a byte becomes `\udcff`."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")
