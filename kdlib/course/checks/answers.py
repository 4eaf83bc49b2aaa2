"""What checkers ask of every answer: is there one, and are its numbers right?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard, TypeVar

T = TypeVar("T")


def answered(answer: T | None) -> TypeGuard[T]:
    """Whether an answer is there and no part of it is still the stub; says so if not."""
    parts = list(answer.values()) if isinstance(answer, Mapping) else answer
    parts = parts if isinstance(parts, (list, tuple)) else [parts]
    complete = all(part is not None for part in parts)
    if not complete:
        print("not answered yet")
    return complete


def numbers_right(
    answer: Mapping[str, float], true: Mapping[str, float], hint: str, *, relative: float = 0.0, absolute: float = 0.0
) -> bool:
    """Whether every number is within its tolerance of the true one; if not, names the first, with a hint."""
    for name, value in true.items():
        given = answer.get(name)
        if given is None or not abs(float(given) - value) <= absolute + relative * abs(value):
            print(f"not yet: {given} for '{name}'; {hint}")
            return False
    return True
