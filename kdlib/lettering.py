"""Names as figures show them: any script, any sign, no mathematics.

Names of defects and products come from folders. Matplotlib reads text between two dollar signs as mathematics, and
draws a box for what its font lacks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import matplotlib as mpl
from matplotlib import font_manager

_FALLBACK = (
    *("DejaVu Sans", "Noto Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans Arabic", "Noto Sans Devanagari"),
    *("Noto Sans Thai", "Segoe UI", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Arial Unicode MS", "PingFang SC"),
    *("Hiragino Sans", "WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAexGothic", "Unifont"),
)
_P = ParamSpec("_P")
_T = TypeVar("_T")


def lettered(draw: Callable[_P, _T]) -> Callable[_P, _T]:
    """Lets a function draw text in matplotlib's font, and what that lacks in fonts of this machine that have it."""

    @wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with mpl.rc_context({"font.family": [*mpl.rcParams["font.family"], *_installed()]}):
            return draw(*args, **kwargs)

    return drawn


def name(text: object) -> str:
    """A name as matplotlib draws it literally: dollar signs escaped, signs that no font here has as their numbers."""
    return spelled(str(text)).replace("$", r"\$")


def spelled(text: str) -> str:
    """The text with every sign that cannot be drawn as its number in Unicode, like <U+2603>."""
    return "".join(sign if sign in "\n\t" or ord(sign) in _signs() else f"<U+{ord(sign):04X}>" for sign in text)


@cache
def _installed() -> tuple[str, ...]:
    known = set(font_manager.get_font_names())
    return tuple(family for family in _FALLBACK if family in known)


@cache
def _signs() -> frozenset[int]:
    """Numbers of all signs that the fallback fonts can draw."""
    files = [font_manager.findfont(family) for family in _installed()]
    return frozenset(sign for file in files for sign in font_manager.get_font(file).get_charmap())
