"""Names of networks: which weights a bare name means, and how a network wants its images normalised."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches

import timm

from kdlib.config import DEFAULT_BACKBONE

DEFAULT = DEFAULT_BACKBONE
JOIN = "+"  # between the names of several networks that teach as one
# Networks of the original papers used torchvision's first ImageNet weights; a bare timm name means other ones.
_PAPER_TAG = "tv_in1k"
# timm's configuration has other numbers for these than the weights of the package were trained with.
_TF_LITE_MEAN, _TF_LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3


def full_name(name: str) -> str:
    """The timm name with its weights tag: torchvision's where timm has it, else timm's own default.

    Raises:
        ValueError: If timm does not know the network or the tag.
    """
    base = name.split(".")[0]
    if not timm.is_model(base):
        close = get_close_matches(base, timm.list_models(), n=4)
        raise ValueError(f"unknown network '{name}'; expected a timm name, for example {close or [DEFAULT]}")
    known, of_papers = timm.list_pretrained(f"{base}.*"), f"{base}.{_PAPER_TAG}"
    if "." in name:
        if name not in known:
            raise ValueError(f"unknown weights '{name}'; timm has {known}")
        return name
    if of_papers in known:
        return of_papers
    default = timm.get_pretrained_cfg(base)
    return f"{base}.{default.tag}" if default is not None and default.tag else base


def normalisation(name: str) -> tuple[Sequence[float], Sequence[float]]:
    """Mean and standard deviation per colour that a network wants subtracted and divided out, of values in 0..1."""
    if name.startswith("tf_efficientnet_lite"):
        return _TF_LITE_MEAN, _TF_LITE_STD
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise ValueError(f"timm knows no input normalisation for '{name}'; choose a network with pretrained weights")
    return config.mean, config.std
