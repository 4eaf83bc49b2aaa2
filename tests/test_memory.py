"""CRAM: what centres alone, everything, and something in between let through."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kdlib.layers.memory import CRAM, Rho


def memory(width: int = 6, centres: int = 5, rho: Rho = "residual") -> CRAM:
    """A memory at work: centres, scales and rho as training might leave them."""
    torch.manual_seed(0)
    cram = CRAM(8, width=width, centres=centres, rho=rho)
    for p in cram.parameters():
        torch.nn.init.normal_(p)
    return cram.eval()


def slowly(cram: CRAM, x: Tensor) -> Tensor:
    """The formula, token by token and centre by centre."""
    rows = []
    for token in x:
        scales = torch.log1p(cram.scales.exp())
        share = torch.softmax(-scales * torch.stack([(token - c).pow(2).sum() for c in cram.centres]), 0)
        parts = [a * (c + rho(cram, token - c)) for a, c in zip(share, cram.centres, strict=True)]
        rows.append(torch.stack(parts).sum(0))
    return torch.stack(rows)


def rho(cram: CRAM, residual: Tensor) -> Tensor:
    if cram.rho == "residual":
        return cram.stretch(torch.relu(cram.squeeze(residual)))
    return residual if cram.rho == "identity" else torch.zeros_like(residual)


@pytest.mark.parametrize("kind", ["residual", "zero", "identity"])
def test_the_formula(kind: Rho) -> None:
    cram, x = memory(rho=kind), torch.randn(7, 6)
    torch.testing.assert_close(cram.aggregate(x), slowly(cram, x), rtol=1e-4, atol=1e-5)


def test_identity_lets_everything_through() -> None:
    cram, x = memory(width=32, centres=20, rho="identity"), torch.randn(2, 9, 32)
    assert (cram.aggregate(x) - x).abs().max() < 1e-6


def test_one_centre_without_residual_is_all_that_there_is() -> None:
    cram, x = memory(centres=1, rho="zero"), torch.randn(2, 9, 6)
    assert (cram.aggregate(x) - cram.centres[0]).abs().max() < 1e-6


def test_a_pure_memory_stays_between_its_centres_and_a_new_one_is_pure() -> None:
    x = 100 * torch.randn(50, 6)
    y, c = memory(rho="zero").aggregate(x), memory(rho="zero").centres
    assert (y <= c.amax(0) + 1e-5).all() and (y >= c.amin(0) - 1e-5).all()
    fresh = CRAM(8, width=6, centres=5)
    torch.testing.assert_close(fresh.aggregate(x), fresh.assign(x) @ fresh.centres)
    torch.testing.assert_close(torch.nn.functional.softplus(fresh.scales), torch.full((5,), 1 / 6))


def test_shares_sum_to_one_and_the_nearest_centre_of_equal_scales_has_most() -> None:
    cram, x = CRAM(8, width=6, centres=5), torch.randn(40, 6)
    torch.testing.assert_close(cram.assign(x).sum(1), torch.ones(40))
    distances = torch.cdist(x, cram.centres) ** 2
    torch.testing.assert_close(cram.squared_distances(x), distances, rtol=1e-4, atol=1e-4)
    assert torch.equal(cram.assign(x).argmax(1), distances.argmin(1))


def test_compactness_moves_centres_and_not_tokens() -> None:
    cram, x = CRAM(8, width=2, centres=2, rho="zero"), torch.tensor([[1.0, 0.0], [0.0, 4.0]], requires_grad=True)
    cram.centres.data = torch.tensor([[0.0, 0.0], [0.0, 3.0]])
    found = cram.compactness(x)
    assert found.item() == pytest.approx((1 + 1) / 2 / 2)
    found.backward()
    assert x.grad is None and cram.centres.grad is not None and cram.centres.grad.tolist() == [[-0.5, 0], [0, -0.5]]


def test_maps_of_any_shape_keep_it_and_half_precision_changes_little() -> None:
    cram, z = memory(), torch.randn(2, 8, 3, 5)
    y, named = cram(z)
    assert y.shape == z.shape and named["compact"].shape == ()
    own = cram.expand(cram.aggregate(cram.tokens(z[:1, :, 1:2, 2:3]))[..., None, None][:, 0])
    torch.testing.assert_close(y[:1, :, 1:2, 2:3], own, rtol=1e-4, atol=1e-5)
    cram = CRAM(8, width=6, centres=5).eval()
    with torch.autocast("cpu", torch.bfloat16):
        half, _ = cram(z)
    torch.testing.assert_close(half.float(), cram(z)[0], rtol=0, atol=0.03)


def test_seeds_are_tokens() -> None:
    cram, x = CRAM(8, width=4, centres=3), torch.randn(10, 4)
    cram.seed(x)
    assert len({int((x - c).abs().sum(1).argmin()) for c in cram.centres}) == 3
    assert all((x == c).all(1).any() for c in cram.centres)
    before = cram.centres[2].clone()
    cram.seed(x[:2])
    assert torch.equal(cram.centres[2], before)


def test_settings_that_make_no_sense() -> None:
    for wrong in ({"centres": 0}, {"rho": "half"}):
        with pytest.raises(ValueError, match=r"expected 1 or more, residual, zero or identity"):
            CRAM(8, width=4, **wrong)  # type: ignore[arg-type]
