"""What only the notebooks need: rendered image sets, figures, widgets, checkers, studies and the ledger of claims.

Each part is imported when it is first asked for: rendering a set needs neither ipywidgets nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdlib.course import checks, claims, figures, forest, measure, rendered, studies, widgets

__all__ = ["checks", "claims", "figures", "forest", "measure", "rendered", "studies", "widgets"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return import_module(f"kdlib.course.{name}")
    raise AttributeError(f"module 'kdlib.course' has no attribute '{name}'; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return __all__
