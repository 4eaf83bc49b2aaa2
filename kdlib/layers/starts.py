"""How convolutions start: with weights that keep the size of what passes, however many layers there are."""

from __future__ import annotations

from typing import Literal

from torch import nn

Start = Literal["pytorch", "he"]
"""`pytorch`: its default, which shrinks what passes a convolution and a ReLU to less than half; `he`: see `start`."""


def start(module: nn.Module, how: Start) -> None:
    """Draws the weights of all convolutions anew where `he` is asked for; biases are then 0.

    A network without normalisation layers that starts with PyTorch's weights says nearly the same about every image for
    hundreds of steps. Source: He et al., Delving Deep into Rectifiers, ICCV 2015.
    """
    if how == "pytorch":
        return
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
