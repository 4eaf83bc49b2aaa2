"""What the fields of a dataclass mean, out of its docstring, and what they may hold, out of its types.

Configuration files and the help of the command line are made of it, so that nothing is written twice.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field
from typing import Any, get_type_hints

from kdlib.config import described

_ENTRY = re.compile(r" {4}(\w+): (.*)")
_MORE = re.compile(r" {8}(.*)")


def meanings(kind: type) -> dict[str, str]:
    """The sentence behind every name under `Attributes:`; what a class says replaces what its bases say."""
    found: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        found |= {name: text.replace("`", "") for name, text in _attributes(inspect.cleandoc(part.__doc__ or ""))}
    return found


def expectations(kind: type) -> dict[str, str]:
    """What every field may hold, in words: `a whole number or none`, `one of sum, mean`."""
    return {name: described(hint) for name, hint in get_type_hints(kind).items()}


def default(field: Field[Any]) -> Any:
    """A field's default, `MISSING` where it has none."""
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _attributes(docstring: str) -> Iterator[tuple[str, str]]:
    """Names and texts of a section `Attributes:` in Google style."""
    _, _, section = docstring.partition("\nAttributes:\n")
    name, words = "", ""
    for line in section.splitlines():
        if entry := _ENTRY.fullmatch(line):
            if name:
                yield name, words
            name, words = entry.groups()
        elif more := _MORE.fullmatch(line):
            words = f"{words} {more[1]}"
        elif line:
            break
    if name:
        yield name, words
