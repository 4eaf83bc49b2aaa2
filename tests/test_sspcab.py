"""SSPCAB: the block against published values and by hand, what it sees of its centre, and RD with it as a neck."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor
from torch.nn import functional as F

from kdlib.contract import Batch
from kdlib.layers.sspcab import SSPCAB
from kdlib.methods import preset
from kdlib.methods.rd import RD
from kdlib.methods.sspcab import ReverseSSPCAB, SSPCABConfig

REFERENCE = Path(__file__).parent / "reference" / "sspcab.npz"
CASES = {"k1d1": (1, 1), "k2d1": (2, 1), "k1d0": (1, 0)}


@pytest.fixture(scope="module")
def reference() -> Mapping[str, Any]:
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


def published(reference: Mapping[str, Any], case: str) -> SSPCAB:
    """The block with the parameters of one case."""
    kernel, gap = CASES[case]
    block = SSPCAB(16, kernel=kernel, gap=gap)
    names = {f"corners.{i}": f"conv{i + 1}" for i in range(4)} | {"squeeze": "se.fc1", "stretch": "se.fc2"}
    state = {f"{own}.{p}": f"{case}/{theirs}.{p}" for own, theirs in names.items() for p in ("weight", "bias")}
    block.load_state_dict({own: torch.tensor(reference[key]) for own, key in state.items()})
    return block


def check(found: Tensor, expected: Any) -> None:
    found, expected = found.detach().numpy(), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def gradient(output: Tensor, x: Tensor) -> Tensor:
    """Of the sum of all channels of the first image's output at row 4, column 5, with respect to that image."""
    return torch.autograd.grad(output[0, :, 4, 5].sum(), x)[0][0]


@pytest.mark.parametrize("case", CASES)
def test_published_values(reference: Mapping[str, Any], case: str) -> None:
    block = published(reference, case)
    x = torch.tensor(reference["x"], requires_grad=True)
    predicted, named = block(x)
    check(predicted, reference[f"{case}_out"])
    check(named["prediction"], reference[f"{case}_mse_with_input"])
    check(block.predict(x), reference[f"{case}_masked_conv_relu"])
    check(gradient(block.predict(x), x), reference[f"{case}_masked_conv_grad_at_4_5"])
    check(gradient(predicted, x), reference[f"{case}_grad_at_4_5"])


@pytest.mark.parametrize("case", CASES)
def test_the_centre_is_hidden_but_for_the_mean_of_the_attention(reference: Mapping[str, Any], case: str) -> None:
    block = published(reference, case)
    x = torch.tensor(reference["x"], requires_grad=True)
    masked, whole = (gradient(output, x).abs().sum(0) for output in (block.predict(x), block(x)[0]))
    kernel, gap = CASES[case]
    seen = [offset for offset in range(gap + 1, gap + kernel + 1)]
    lines = [*(-offset for offset in seen), *seen]
    support = {(4 + dy, 5 + dx) for dy in lines for dx in lines if 0 <= 4 + dy < 8 and 0 <= 5 + dx < 10}
    assert {(int(i), int(j)) for i, j in masked.nonzero()} <= support
    assert masked[4, 5] == 0 < whole[4, 5] < 0.05 * whole.max()


@pytest.mark.parametrize("gap", [0, 1, 2])
def test_with_sub_kernels_of_one_position_it_is_a_dilated_convolution_of_two_by_two(gap: int) -> None:
    block = SSPCAB(4, gap=gap)
    top_left, below, right, both = (conv.weight for conv in block.corners)
    kernel = torch.cat([torch.cat([top_left, right], dim=3), torch.cat([below, both], dim=3)], dim=2)
    bias = sum(conv.bias for conv in block.corners)
    x = torch.rand(2, 4, 9, 7)
    expected = F.conv2d(x, kernel, bias, padding=gap + 1, dilation=2 * gap + 2).relu()
    torch.testing.assert_close(block.predict(x), expected)


def test_sizes_and_parameters() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in SSPCAB(512).parameters()) == 1_116_736
    for kernel in (1, 2, 3):
        for gap in (0, 1, 2):
            predicted, _ = SSPCAB(3, kernel=kernel, gap=gap)(torch.rand(2, 3, 6, 9))
            assert predicted.shape == (2, 3, 6, 9) and predicted.min() >= 0
    assert SSPCAB(3).squeeze.out_features == 1  # type: ignore[union-attr]


def test_how_many_guesses_read_no_zero_from_outside() -> None:
    x = torch.ones(1, 1, 8, 8)
    for gap, inside in ((0, 36), (1, 16), (2, 4)):
        block = SSPCAB(1, gap=gap, attention=False)
        for conv in block.corners:
            torch.nn.init.ones_(conv.weight)
            torch.nn.init.zeros_(conv.bias)
        assert int((block.predict(x) == 4).sum()) == inside


def test_attention_is_a_factor_per_channel() -> None:
    block, plain = SSPCAB(8), SSPCAB(8, attention=False)
    plain.corners.load_state_dict(block.corners.state_dict())
    x = torch.rand(2, 8, 6, 6)
    torch.testing.assert_close(plain(x)[0], block.predict(x))
    torch.nn.init.zeros_(block.stretch.weight)  # type: ignore[union-attr]
    torch.nn.init.zeros_(block.stretch.bias)  # type: ignore[union-attr]
    torch.testing.assert_close(block(x)[0], block.predict(x) / 2)


def test_the_loss_moves_what_lies_before_it_unless_it_is_detached() -> None:
    for detach in (False, True):
        block = SSPCAB(4, detach=detach)
        z = torch.rand(1, 4, 8, 8, requires_grad=True)
        block.zero_grad()
        predicted, named = block(z)
        (own,) = torch.autograd.grad(named["prediction"], z, retain_graph=True)
        (through,) = torch.autograd.grad(F.mse_loss(predicted, z.detach()), z)
        assert torch.equal(own, through) == detach


def test_maps_and_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"2 positions away.*map of 2 x 6; choose a smaller gap or larger images"):
        SSPCAB(4)(torch.rand(1, 4, 2, 6))
    for wrong in ({"kernel": 0}, {"ratio": 0}, {"gap": -1}):
        with pytest.raises(ValueError, match="expected kernel and ratio of 1 or more, gap of 0 or more"):
            tiny.build("sspcab", **wrong) if "ratio" not in wrong else SSPCAB(4, **wrong)


def test_defaults() -> None:
    config, host = preset("sspcab/mvtec"), preset("rd/mvtec")
    assert isinstance(config, SSPCABConfig)
    assert (config.neck, config.neck_weight, config.kernel, config.gap) == ("sspcab", 0.1, 1, 1)
    assert config.attention and not config.detach
    assert (config.backbone, config.lr, config.epochs) == (host.backbone, host.lr, host.epochs)  # type: ignore[attr-defined]


def test_it_is_rd_with_a_neck() -> None:
    batch = Batch(image=torch.rand(2, 3, 64, 64), category=torch.zeros(2, dtype=torch.long))
    own, host = tiny.build("sspcab", neck="none", seed=1).eval(), tiny.build("rd", seed=1).eval()
    assert tiny.equal(own, host)
    own = tiny.build("sspcab", neck_weight=0.5).eval()
    assert isinstance(own, ReverseSSPCAB) and isinstance(own, RD)
    named = own.loss(batch)
    levels = sum(value for name, value in named.items() if name.startswith("level"))
    torch.testing.assert_close(named["total"], levels + 0.5 * named["prediction"])
    assert tiny.build("sspcab", neck="cram").student.neck.centres.shape[0] == 128


@pytest.mark.parametrize("host", ["rd", "dnpkd", "snl"])
def test_any_host_may_have_it(host: str) -> None:
    model = tiny.build(host, neck="sspcab")
    batch = Batch(image=torch.rand(2, 3, 96, 96), category=torch.zeros(2, dtype=torch.long))
    named = model.loss(batch)
    assert isinstance(model.student.neck, SSPCAB) and named["prediction"] > 0
    named["total"].backward()
    assert all(p.grad is not None for p in model.student.neck.parameters())
