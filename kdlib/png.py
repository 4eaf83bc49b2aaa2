"""Figures as PNG pictures with their alt text, small enough for notebooks that are kept with their outputs."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image


def show(figure: Figure) -> None:
    """Displays a figure in a notebook as a PNG with its label as alt text, and closes it."""
    from IPython.display import display

    data, metadata = bundle(figure)
    display(data, raw=True, metadata=metadata)
    plt.close(figure)


def bundle(figure: Figure) -> tuple[dict[str, Any], dict[str, Any]]:
    """The figure as a PNG with its label as alt text, as notebooks keep it."""
    # Names of files need not be UTF-8, notebooks are.
    alt = str(figure.get_label() or "figure").encode("utf-8", "backslashreplace").decode()
    return {"image/png": base64.b64encode(png(figure)).decode(), "text/plain": alt}, {"image/png": {"alt": alt}}


def png(figure: Figure, dpi: int = 100) -> bytes:
    """The figure as a PNG whose colours are rounded to multiples of 8 in 0..255: much smaller, the same to the eye.

    A palette of 256 colours would be smaller for one photograph, but loses rare colours beside a map: rust turns grey.
    """
    figure.savefig(full := io.BytesIO(), format="png", dpi=dpi)
    colours = np.asarray(Image.open(full).convert("RGB"), dtype=np.uint16)
    rounded = np.minimum((colours + 4) // 8 * 8, 255).astype(np.uint8)
    Image.fromarray(rounded).save(small := io.BytesIO(), format="png", optimize=True)
    return small.getvalue()
