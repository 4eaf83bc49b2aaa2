"""What checkers ask of every answer: is there one, and are its numbers right?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard, TypeVar

from kdlib.contract import Distiller
from kdlib.data.records import ImageSet
from kdlib.scoring.evaluation import evaluate
from kdlib.scoring.result import Result

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


def beats(model: Distiller, sets: Mapping[str, ImageSet], to_beat: Mapping[str, Result], most: int) -> None:
    """Says whether a model of at most so many steps has, on the first set, a higher AUPRO than the result of that name.

    The other sets' AUPROs are printed beside it, so that one sees who pays.
    """
    if model.config.steps is None or model.config.steps > most:
        print(f"not yet: trained for {model.config.steps} steps; expected at most {most}, as the student to beat")
        return
    own = {name: evaluate(model, images).metrics()["aupro"] for name, images in sets.items()}
    theirs = {name: to_beat[name].metrics()["aupro"] for name in sets}
    words = [f"{name.replace('_', ' ')} {own[name]:.3f} (to beat: {theirs[name]:.3f})" for name in sets]
    first = next(iter(sets))
    print(f"{'right' if own[first] > theirs[first] else 'not yet'}: AUPRO {', '.join(words)}")
