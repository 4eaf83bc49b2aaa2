"""Figures as PNG pictures with their alt text, small enough for notebooks that are kept with their outputs."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

GREY = 48  # largest difference between red, green and blue


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
    """The figure as a PNG with fewer colours: steps of 5 in 0..255, and of 10 in greys, where photographs have noise.

    It has a third of the size and looks the same. A palette of 256 colours would be smaller for one photograph, but
    loses rare colours beside a map: rust turns grey.
    """
    figure.savefig(full := io.BytesIO(), format="png", dpi=dpi)
    colours = np.asarray(Image.open(full).convert("RGB"), dtype=np.uint16)
    step = np.where(np.ptp(colours, axis=2, keepdims=True) < GREY, 10, 5)
    rounded = np.minimum((colours + step // 2) // step * step, 255).astype(np.uint8)
    Image.fromarray(rounded).save(small := io.BytesIO(), format="png", optimize=True)
    return small.getvalue()
