"""What a data set can get wrong, said in a message that every terminal can print."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from unicodedata import category as kind_of_sign


class DatasetError(ValueError):
    """A data set on disk is not what it should be; the message says what was found and how to mend it."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    r"""Text that can be printed and written: bytes in names of files that are no UTF-8 become `\udcff`."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def readable(name: str) -> str:
    r"""The printable name of a file, on one line: line breaks and other control characters become `\n` and the like."""
    broken = {sign for sign in name if kind_of_sign(sign) in ("Cc", "Zl", "Zp")}
    return printable("".join(sign.encode("unicode_escape").decode() if sign in broken else sign for sign in name))


def check_known(what: str, name: str, known: Sequence[str], hint: str = "") -> None:
    """Raise a `DatasetError` that lists the known names, and the closest first, unless `name` is one of them."""
    if name in known:
        return
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    raise DatasetError(f"Unknown {what} {name!r}.{guess} Known: {', '.join(known)}.{hint}")
