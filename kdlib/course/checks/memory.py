"""Checkers of notebook 11_memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import e, log
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib.course.checks.answers import answered, first_match, numbers_right, verdict
from kdlib.scoring.result import Result


def memory_numbers(answer: Mapping[str, float] | None) -> None:
    """Notebook 11: how loud one slot of 50 can be, the temperature at which it decides, and what a memory costs."""
    if not answered(answer):
        return
    true = {
        "largest share": e / (e + 49 / e),
        "temperature for 0.9": 2 / log(49 * 9),
        "bytes": 4 * 2 * 50 * (256 + 512),
    }
    hints = "shares are exp(cos / temperature) over their sum; keys and values are two tables of float32 numbers"
    if numbers_right(answer, true, hints, relative=0.01):
        print(
            "right: without a temperature a perfect match gets an eighth of the vote, all strangers together the rest"
        )


def saved_memory(answer: Callable[[int, int], nn.Module] | None) -> None:
    """Notebook 11: a memory, made for so many slots and channels, that is trained, moved and saved."""
    found = None if answer is None else answer(4, 3)
    if not answered(found):
        return
    fault = _saving_fault(found)
    print(f"not yet: {fault}" if fault else "right: trained, moved and saved; what a model needs must be in its state")


def _saving_fault(memory: nn.Module) -> str:
    """What is wrong with a memory of 4 slots and 3 channels."""
    state = memory.state_dict()
    shapes = sorted(tuple(tensor.shape) for tensor in state.values())
    if not state:
        return "state_dict() is empty: whoever saves this model loses its memory"
    if shapes != [(4, 3), (4, 3)]:
        return f"expected keys and values, (4, 3) each, in state_dict(); found {shapes}"
    if len(list(memory.parameters())) < 2:
        return "keys and values are saved and not trained: an optimiser asks for parameters()"
    x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    keys, values = state.get("keys"), state.get("values")
    if keys is None or values is None:
        return f"call them keys and values; found {sorted(state)}"
    expected = recalled(x, keys, values)
    return first_match(memory(x), {"": expected}, "forward no longer recalls what it recalled before")


def recalled(x: Tensor, keys: Tensor, values: Tensor, best: int | None = None) -> Tensor:
    """What features [B, C, h, w] recall at temperature 1, from the `best` slots only, if given."""
    cosines = torch.einsum("lc,bchw->blhw", F.normalize(keys, dim=1), F.normalize(x, dim=1))
    if best is not None:
        least = cosines.topk(best, dim=1).values[:, -1:]
        cosines = cosines.masked_fill(cosines < least, -torch.inf)
    return torch.einsum("blhw,lc->bchw", cosines.softmax(1), values)


def best_slots(answer: Callable[..., Tensor | None] | None) -> None:
    """Notebook 11: recall from the best matching slots alone."""
    generator = torch.Generator().manual_seed(0)
    x, keys, values = (torch.randn(shape, generator=generator) for shape in ((2, 6, 4, 5), (9, 6), (9, 6)))
    found = None if answer is None else answer(x, keys, values, 3)
    if not answered(found):
        return
    if not isinstance(found, Tensor) or found.shape != x.shape:
        print(f"not yet: expected a tensor {tuple(x.shape)}; found {getattr(found, 'shape', found)}")
        return
    cosines = torch.einsum("lc,bchw->blhw", F.normalize(keys, dim=1), F.normalize(x, dim=1))
    shares = cosines.softmax(1)
    kept = shares * (shares >= shares.topk(3, dim=1).values[:, -1:])
    cases = {
        "all slots still speak": recalled(x, keys, values),
        "the shares that are left no longer sum to 1": torch.einsum("blhw,lc->bchw", kept, values),
        "that is the single best slot; `best` of them should speak": recalled(x, keys, values, 1),
        "": recalled(x, keys, values, 3),
    }
    fault = first_match(
        found, cases, "the values differ; take the largest cosines at each place, then a softmax of them"
    )
    if not fault:
        leaf = keys.clone().requires_grad_()
        again = answer(x, leaf, values, 3)  # type: ignore[misc]
        if not (isinstance(again, Tensor) and again.requires_grad):
            fault = "no gradient reaches the keys: they could not be trained"
    print(f"not yet: {fault}" if fault else "right: strangers are silenced, and the keys still learn")


def own_memory(
    answer: Mapping[str, Any] | None, trained: Callable[[Mapping[str, Any]], Result], to_beat: Result
) -> None:
    """Notebook 11: options with which a memory's student has a higher image AUROC in as many steps."""
    if not answered(answer):
        return
    if fixed := sorted({"steps", "batch_size", "backbone", "weights"} & answer.keys()):
        print(f"not yet: leave {', '.join(fixed)} as they are, so that both students have learned equally long")
        return
    verdict(trained(answer), to_beat, "image_auroc")
