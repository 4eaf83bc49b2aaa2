"""Normalising flows, filters in the frequency domain and standardisation: against NumPy, autograd and loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kdlib.layers.flow import ConvFlow, negative_log_likelihood, positions
from kdlib.layers.spectral import DualDomain, SpectralConv, SpectralGate
from kdlib.layers.standardise import Standardise

FLOWS: list[dict[str, Any]] = [
    {},
    {"kernels": (3, 1) * 4, "coupling": "single", "clamp": 2.0, "position": 0},
    {"kernels": (1,) * 8, "position": 128},
]


def opened(channels: int, **options: Any) -> ConvFlow:
    """A flow that does more than permute."""
    torch.manual_seed(0)
    flow = ConvFlow(channels, **options)
    for name, p in flow.named_parameters():
        if name.endswith("gain"):
            nn.init.constant_(p, 1.0)
    return flow


def jacobian(flow: ConvFlow, x: Tensor) -> Tensor:
    found = torch.autograd.functional.jacobian(lambda f: flow(f)[0], x)
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize("options", FLOWS)
@pytest.mark.parametrize("channels", [2, 5, 24])
def test_a_flow_can_be_inverted(options: dict[str, Any], channels: int) -> None:
    flow, x = opened(channels, **options), torch.randn(2, channels, 6, 7)
    with torch.no_grad():
        z, log_det = flow(x)
        assert z.shape == x.shape and log_det.shape == (2, 6, 7)
        assert (z - x).abs().max() > 0.1 and log_det.abs().max() > 0.1
        assert (flow.inverse(z) - x).abs().max() < 1e-4


@pytest.mark.parametrize("options", FLOWS)
def test_log_determinants_are_those_of_the_jacobian(options: dict[str, Any]) -> None:
    flow, x = opened(4, **options), torch.randn(1, 4, 3, 2)
    expected = torch.linalg.slogdet(jacobian(flow, x).reshape(24, 24)).logabsdet
    torch.testing.assert_close(flow(x)[1].sum(), expected, atol=1e-3, rtol=1e-4)


def test_log_determinants_belong_to_positions() -> None:
    flow, x = opened(4, kernels=(1, 1)), torch.randn(1, 4, 2, 3)
    whole = jacobian(flow, x)[0, ..., 0, :, :, :]
    for row in range(2):
        for column in range(3):
            own = torch.linalg.slogdet(whole[:, row, column, :, row, column]).logabsdet
            torch.testing.assert_close(flow(x)[1][0, row, column], own, atol=1e-4, rtol=1e-4)


def test_a_fresh_flow_only_permutes() -> None:
    x = torch.randn(8, 64, 9, 9)
    z, log_det = ConvFlow(64)(x)
    assert torch.equal(log_det, torch.zeros(8, 9, 9))
    torch.testing.assert_close(z.sort(1).values, x.sort(1).values)
    assert not torch.equal(z, x)
    # half the squared norm of 64 standard normal numbers, per channel
    assert float(negative_log_likelihood(z, log_det).mean().detach()) == pytest.approx(0.5, abs=0.01)


def test_the_likelihood_is_that_of_a_scaled_normal_distribution() -> None:
    """z = x / sigma is the best flow for x ~ N(0, sigma^2), whose entropy is known."""
    sigma, x = 3.0, 3.0 * torch.randn(64, 6, 20, 20)
    found = negative_log_likelihood(x / sigma, torch.full((64, 20, 20), -6 * float(np.log(sigma))))
    entropy = torch.distributions.Normal(0.0, sigma).entropy() - 0.5 * np.log(2 * np.pi)
    assert float(found.mean()) == pytest.approx(float(entropy), abs=0.01)


def test_log_scales_are_bounded_and_formula_of_the_coupling() -> None:
    flow = opened(2, kernels=(1,), position=0, clamp=1.9)
    x = torch.randn(1, 2, 1, 1)
    block = flow.net[1]
    x1, x2 = x[:, flow.net[0].perm].unbind(1)

    def half(subnet: nn.Module, seen: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
        s, t = subnet(seen[:, None])[0, :, 0, 0]
        s = 0.636 * 1.9 * torch.atan(s / 1.9)
        return s.exp() * changed + t, s

    y1, s2 = half(block.subnet2, x2, x1)
    y2, s1 = half(block.subnet1, y1, x2)
    z, log_det = flow(x)
    torch.testing.assert_close(z, torch.stack([y1, y2], dim=1))
    torch.testing.assert_close(log_det[0, 0, 0], s1 + s2)
    far = flow(1e4 * x)[1].abs()
    assert far.max() <= 2 * 1.9


def test_flows_stay_in_float32_and_leave_numpys_generator_alone() -> None:
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.rand()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    flow, x = opened(6), torch.randn(1, 6, 4, 4)
    assert np.random.rand() == expected  # noqa: NPY002
    with torch.autocast("cpu", torch.bfloat16):
        half = flow(x)[0]
    assert half.dtype == torch.float32 and torch.equal(half, flow(x)[0])
    assert flow(x.bfloat16())[0].dtype == torch.float32


def test_what_no_flow_can_be() -> None:
    for kernels in ((), (2,), (3, 0)):
        with pytest.raises(ValueError, match="odd numbers"):
            ConvFlow(4, kernels=kernels)
    for channels, options in ((1, {}), (4, {"hidden": 0}), (4, {"clamp": 0})):
        with pytest.raises(ValueError, match="2 channels"):
            ConvFlow(channels, **options)
    with pytest.raises(ValueError, match="multiple of 4"):
        ConvFlow(4, position=6)(torch.rand(1, 4, 2, 2))


def test_positions() -> None:
    encoding = positions(torch.empty(2, 7, 3, 5), 8)
    assert encoding.shape == (2, 8, 3, 5)
    expected = torch.zeros(8, 3, 5)
    for row in range(3):
        for column in range(5):
            for k, at in ((0, column), (4, row)):
                expected[k : k + 4, row, column] = torch.tensor(
                    [np.sin(at), np.sin(at / 100), np.cos(at), np.cos(at / 100)]
                )
    torch.testing.assert_close(encoding[1], expected)
    assert positions(torch.empty(2, 7, 3, 5), 0).shape == (2, 0, 3, 5)


@pytest.mark.parametrize("size", [(6, 8), (5, 7), (1, 2)])
def test_filters_against_numpy(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size)
    spectrum = np.fft.rfft2(x.double().numpy(), norm="ortho")
    gate = SpectralGate(3).eval()
    weight, bias = (p.detach().double().numpy() for p in (gate.gate.weight[:, :, 0, 0], gate.gate.bias))  # type: ignore[union-attr]
    factor = 1 / (1 + np.exp(-(np.einsum("oc,bchw->bohw", weight, abs(spectrum)) + bias[:, None, None])))
    expected = np.fft.irfft2(factor * spectrum, s=size, norm="ortho")
    torch.testing.assert_close(gate(x), torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-4)

    conv = SpectralConv(3).eval()
    first, second = (conv.net[i].weight.detach().double().numpy()[:, :, 0, 0] for i in (0, 3))  # type: ignore[union-attr,operator]
    parts = np.concatenate([spectrum.real, spectrum.imag], axis=1)
    hidden = np.maximum(np.einsum("oc,bchw->bohw", first, parts) / np.sqrt(1 + 1e-5), 0)
    out = np.einsum("oc,bchw->bohw", second, hidden) + conv.net[3].bias.detach().double().numpy()[:, None, None]  # type: ignore[union-attr,operator]
    expected = np.fft.irfft2(out[:, :3] + 1j * out[:, 3:], s=size, norm="ortho")
    torch.testing.assert_close(conv(x), torch.from_numpy(expected).float(), atol=1e-5, rtol=1e-4)


def test_the_frequency_branch_sees_the_whole_image() -> None:
    torch.manual_seed(0)
    reach = {}
    for kind in ("convolve", "gate", "none"):
        block = DualDomain(4, kind).eval()  # type: ignore[arg-type]
        x = torch.randn(1, 4, 16, 16, requires_grad=True)
        block(x)[0, :, 0, 0].sum().backward()
        assert x.grad is not None
        reach[kind] = int((x.grad[0].abs().sum(0) > 1e-7).sum())
    assert reach["none"] == 9 and reach["convolve"] > 200 and reach["gate"] > 200
    plain = DualDomain(4, "none").eval()
    torch.testing.assert_close(plain(x), x + plain.spatial(x))
    full = DualDomain(4).eval()
    assert full.spectral is not None
    torch.testing.assert_close(full(x), x + full.spatial(x) + full.spectral(x))


def test_filters_stay_in_float32() -> None:
    for kind in (SpectralConv, SpectralGate):
        branch, x = kind(4).eval(), torch.randn(1, 4, 7, 9)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(branch(x), branch(x.float()))
            assert branch(x.bfloat16()).dtype == torch.float32


def test_standardise() -> None:
    rng = np.random.default_rng(0)
    images = [rng.normal(5, [[[[2]], [[0]], [[7]]]], (5, 3, 4, 6)), rng.normal(-1, 3, (5, 2, 2, 3))]
    scale = Standardise([3, 2])
    tensors = [torch.from_numpy(i).float() for i in images]
    assert all(torch.equal(a, b) for a, b in zip(scale(tensors), tensors, strict=True))
    scale.fit([[t[:2] for t in tensors], [t[2:4] for t in tensors], [t[4:] for t in tensors]])
    for found, raw in zip(scale(tensors), images, strict=True):
        std = raw.std((0, 2, 3), keepdims=True)
        expected = (raw - raw.mean((0, 2, 3), keepdims=True)) / np.maximum(std, 0.01 * std.mean() + 1e-6)
        torch.testing.assert_close(found, torch.from_numpy(expected).float(), atol=1e-4, rtol=1e-4)
    spoken = scale([torch.full((1, 3, 1, 1), 6.0), tensors[1]])[0]
    assert 10 < spoken[0, 1, 0, 0] < 100  # the silent channel
