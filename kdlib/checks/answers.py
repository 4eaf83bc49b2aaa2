"""What all checkers ask first: is there an answer?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def missing(answer: Any) -> bool:
    """Whether an answer, or a part of it, is still the stub; says so."""
    parts = list(answer.values()) if isinstance(answer, Mapping) else answer
    parts = parts if isinstance(parts, (list, tuple)) else [parts]
    if missing := any(part is None for part in parts):
        print("not answered yet")
    return missing
