"""DBFAD: layers, student, loss and map against published values, its switches, and what its formulas say by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scipy import ndimage
from torch import Tensor, nn

from kdlib import losses, maps
from kdlib.contract import Batch
from kdlib.layers.attention import PositionAttention
from kdlib.layers.fabric import FabricStudent, convolved
from kdlib.layers.sspcab import SSPCAB
from kdlib.methods import preset
from kdlib.methods.dbfad import DBFAD, DBFADConfig, blur

REFERENCE = Path(__file__).parent / "reference" / "dbfad.npz"
# How the published code calls what is ours, for its student as a whole.
NAMES = (
    (r"block([123])\.(\d)\.", lambda m: f"paths.{int(m[1]) - 1}.{m[2]}."),
    (r"block4\.0\.", "paths.3.0."),
    (r"block5\.([012])\.", r"squeeze.\1."),
    (r"block5\.3\.conv(\d)\.", lambda m: f"neck.corners.{int(m[1]) - 1}."),
    (r"block5\.3\.se\.fc1", "neck.squeeze"),
    (r"block5\.3\.se\.fc2", "neck.stretch"),
    (r"AttBlock\.0\.", "attend."),
    (r"residualLayer(\d)_\d\.0\.", r"branches.\1.0."),
    (r"residualLayer(\d)_\d\.[12]\.", r"branches.\1.2."),
    (r"layer(\d)\.", r"stages.\1."),
    (r"upsample", "downsample"),
)
RELU_NORM = ((r"\bconv\.", "0."), (r"\bbn\.", "2."))
ATTENTION = ((r"conv1\.", "look."), (r"conv2\.", "weigh.0."), (r"conv3\.", "weigh.2."))


@pytest.fixture(scope="module")
def reference() -> Mapping[str, Any]:
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


def parameters(reference: Mapping[str, Any], prefix: str, *renamed: Any) -> dict[str, Tensor]:
    """Published parameters below a prefix, under names of ours."""
    state = {}
    for key, value in reference.items():
        if key.startswith(f"{prefix}/"):
            name = key.removeprefix(f"{prefix}/")
            for pattern, ours in renamed:
                name = re.sub(pattern, ours, name)
            state[name] = torch.tensor(value)
    return state


def check(found: Tensor, expected: Any) -> None:
    found, expected = found.detach().numpy(), np.asarray(expected)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def levels(reference: Mapping[str, Any]) -> list[Tensor]:
    return [torch.tensor(reference[f"teacher{i}"]) for i in range(4)]


IMAGES = torch.empty(2, 3, 128, 128)
TEACHER: Any = SimpleNamespace(
    name="random", strides=(2, 4, 8, 16), channels=(4, 4, 6, 8), style=lambda: SimpleNamespace(signed=False)
)


def student(reference: Mapping[str, Any], residuals: bool = True) -> FabricStudent:
    """The published student, narrow."""
    model = FabricStudent(TEACHER, SSPCAB, residuals=residuals).eval()
    state = parameters(reference, "student", *NAMES, *RELU_NORM)
    for name in list(state):
        if name.startswith(("attend.", "branches.")) and ".conv" in f".{name}":
            new = name
            for pattern, ours in ATTENTION:
                new = re.sub(pattern, ours, new)
            state[new] = state.pop(name)
    if not residuals:
        state = {name: value for name, value in state.items() if not name.startswith("branches.")}
    model.load_state_dict(state)
    return model


def test_published_layers(reference: Mapping[str, Any]) -> None:
    x = torch.tensor(reference["att_in"])
    layers: dict[str, tuple[nn.Module, Any]] = {
        "attention": (PositionAttention(6, 4, hidden=True), ATTENTION),
        "attention2": (PositionAttention(6, 4, kernel=3), ATTENTION),
        "conv1_relu_bn": (convolved(6, 4, stride=2), RELU_NORM),
        "conv3_relu_bn": (convolved(6, 4, kernel=3), RELU_NORM),
    }
    for name, (layer, renamed) in layers.items():
        layer.load_state_dict(parameters(reference, name, *renamed))
        check(layer.eval()(x), reference[f"{name}_out"])


def test_published_bottleneck_and_branches(reference: Mapping[str, Any]) -> None:
    model, t = student(reference), levels(reference)
    check(sum(path(f) for path, f in zip(model.paths, t, strict=True)), reference["bottleneck_sum"])  # type: ignore[arg-type]
    z, _ = model.neck(model.embed(t))
    check(z, reference["bottleneck_sspcab"])
    check(model.attend(z), reference["bottleneck_out"])
    nothing, *helped = model.help(t)
    assert nothing is None
    for level, branch in enumerate(helped):
        assert branch is not None
        check(branch, reference[f"residual{level}_to_{level + 1}"])


def fabric(config: DBFADConfig) -> DBFAD:
    """A method without a network behind it, for its distance, weights and fusion."""
    model = DBFAD.__new__(DBFAD)
    nn.Module.__init__(model)
    model.config, model.teacher = config, SimpleNamespace(strides=TEACHER.strides)
    return model


def with_pairs(model: DBFAD, t: list[Tensor], s: list[Tensor]) -> DBFAD:
    model.levels = lambda x, teacher=None: t  # type: ignore[method-assign]
    model.student = lambda x, t: (s, {})  # type: ignore[assignment]
    return model


def test_published_student_loss_and_map(reference: Mapping[str, Any]) -> None:
    t = levels(reference)
    s, _ = student(reference)(IMAGES, t)
    for level, restored in enumerate(s):
        check(restored, reference[f"student_eval{level}"])
    model = with_pairs(fabric(DBFADConfig(blur=16.0)), t, s)
    batch = Batch(image=IMAGES, category=torch.zeros(2, dtype=torch.long))
    check(2 * model.loss(batch)["total"], reference["loss_eval"])  # theirs is summed over the two images
    weighed = [level / (32 * 32) for level in model.level_maps(IMAGES)]
    plain = maps.fuse(weighed, (64, 64), blur=0)
    check(plain[:, 0], reference["map_64_no_blur"])
    check(model.fuse(weighed, (64, 64))[:, 0], reference["map_64_blur_2d"])
    # The published code blurs a batch of one image along its rows only.
    rows = ndimage.gaussian_filter1d(plain[0, 0].detach().numpy(), sigma=4, axis=1)
    check(torch.tensor(rows), reference["map_64_blur_rowwise"])


def test_published_student_for_unseen_fabrics(reference: Mapping[str, Any]) -> None:
    t = levels(reference)
    s, _ = student(reference, residuals=False)(IMAGES, t)
    for level in (0, 3):
        check(s[level], reference[f"student_dg_eval{level}"])
    model = with_pairs(fabric(DBFADConfig(residuals=False)), t, s)
    batch = Batch(image=IMAGES, category=torch.zeros(2, dtype=torch.long))
    check(2 * model.loss(batch)["total"], reference["loss_dg_eval"])


def test_published_pass_in_training(reference: Mapping[str, Any]) -> None:
    t, model = levels(reference), student(reference).train()
    s, _ = model(IMAGES, t)
    for level in (0, 3):
        check(s[level], reference[f"student_train{level}"])
    half = torch.stack([0.5 * losses.normalised_l2(a, b).mean() for a, b in zip(t, s, strict=True)])
    check(2 * half.mean(), reference["loss_train"])
    check(model.get_buffer("paths.0.0.2.running_mean"), reference["running_mean_after_train_block1.0.bn"])


def test_defaults_are_those_of_the_official_code() -> None:
    config = preset("dbfad/mvtec")
    assert isinstance(config, DBFADConfig)
    assert (config.lr, config.betas, config.batch_size, config.epochs) == (5e-3, (0.9, 0.999), 4, 100)
    assert (config.backbone, config.strides, config.fusion, config.blur) == ("resnet34", (2, 4, 8, 16), "sum", 4)
    assert config.residuals and config.attention == "width" and config.level_weights == "area"


def test_parameters_and_shapes() -> None:
    with torch.device("meta"):
        model = tiny.build("dbfad/mvtec", weights="random")
    s = model.student
    parts = (nn.ModuleList([s.paths, s.squeeze]), s.neck, s.attend, s.branches, s.stages)
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in parts]  # type: ignore[union-attr]
    assert counts == pytest.approx([0.45, 1.12, 4.72, 0.67, 3.85], abs=0.006)
    x = torch.empty(2, 3, 256, 256, device="meta")
    assert s.embed(model.levels(x)).shape == (2, 512, 8, 8)  # type: ignore[operator]
    shapes = [tuple(s.shape[1:]) for _, s in model.pairs(x)]
    assert shapes == [(64, 64, 64), (64, 64, 64), (128, 32, 32), (256, 16, 16)]


@pytest.mark.parametrize(("strides", "count"), [((2, 4, 8, 16), 4), ((4, 8, 16), 3), ((8, 16), 2), ((2, 4), 2)])
def test_levels_with_and_without_a_stem(strides: tuple[int, ...], count: int) -> None:
    model = tiny.build("dbfad", strides=strides).eval()
    x = torch.rand(2, 3, 64, 96)
    pairs = model.pairs(x)
    assert len(pairs) == count and all(t.shape == s.shape for t, s in pairs)
    assert min(t.shape[-1] for t, _ in pairs) == 96 // strides[-1]
    assert model.anomaly_map(x).shape == (2, 1, 64, 96)


def test_equal_logits_divide_by_the_positions_of_the_axis() -> None:
    x = torch.rand(1, 3, 4, 6)
    for axis, positions in (("width", 6), ("all", 24)):
        layer = PositionAttention(3, 3, axis=axis)  # type: ignore[arg-type]
        assert layer.weigh is not None
        for p in layer.weigh.parameters():
            nn.init.zeros_(p)
        torch.testing.assert_close(layer(x), layer.look(x).relu() / positions)
    plain = PositionAttention(3, 3, axis="none")
    torch.testing.assert_close(plain(x), plain.look(x).relu())
    assert not any(name.startswith("weigh") for name, _ in plain.named_parameters())


def test_over_the_width_a_turned_image_has_other_weights() -> None:
    x = torch.rand(1, 3, 6, 6)
    for axis, same in (("width", False), ("all", True), ("none", True)):
        layer = PositionAttention(3, 3, axis=axis)  # type: ignore[arg-type]
        assert torch.allclose(layer(x).mT, layer(x.mT), atol=1e-6) == same


def test_areas_weigh_levels_one_one_four_sixteen() -> None:
    x = torch.rand(1, 3, 64, 64)
    model = tiny.build("dbfad").eval().requires_grad_(False)
    equal = tiny.build("dbfad", level_weights="equal").eval().requires_grad_(False)
    ratios = [float((a / b).mean()) for a, b in zip(model.level_maps(x), equal.level_maps(x), strict=True)]
    assert ratios == pytest.approx([1, 1, 4, 16])


def test_a_path_with_two_halvings_reads_one_position_in_sixteen() -> None:
    path = nn.Sequential(convolved(4, 4, stride=2), convolved(4, 4, stride=2)).eval()
    for p in path.parameters():
        nn.init.ones_(p)
    x = torch.rand(1, 4, 16, 16, requires_grad=True)
    path(x).square().sum().backward()
    assert x.grad is not None
    assert int(x.grad.abs().sum(1).gt(0).sum()) == 256 / 16


def test_without_branches_the_embedding_is_the_only_way() -> None:
    x = torch.rand(2, 3, 64, 64)
    for residuals in (True, False):
        model = tiny.build("dbfad", residuals=residuals).eval()
        t = model.levels(x)
        changed = [t[0] + 1, *t[1:]]
        model.student.embed = lambda _: torch.ones(2, 224, 2, 2)  # type: ignore[assignment, misc]
        same = [torch.equal(a, b) for a, b in zip(model.student(x, t)[0], model.student(x, changed)[0], strict=True)]
        assert same == ([False, False, True, True] if residuals else [True] * 4)


def test_switches_of_the_neck() -> None:
    batch = Batch(image=torch.rand(2, 3, 64, 64), category=torch.zeros(2, dtype=torch.long))
    light, heavy = (tiny.build("dbfad", neck_weight=w).eval().loss(batch) for w in (0.0, 2.0))
    torch.testing.assert_close(heavy["total"], light["total"] + 2 * light["prediction"])
    assert tiny.build("dbfad", detach=True, gap=1).student.neck.detach
    assert "prediction" not in tiny.build("dbfad", neck="none").loss(batch)
    assert "compact" in tiny.build("dbfad", neck="cram").loss(batch)


def test_blurred_training_images(tmp_path: Path) -> None:
    image = torch.zeros(3, 5, 5)
    image[:, 2, 2] = 1
    seen = blur(image, torch.Generator())["blurred"]
    side = float(np.exp(-0.5 / 0.8**2))
    weights = np.array([side, 1, side]) / (1 + 2 * side)
    torch.testing.assert_close(seen[0, 1:4, 1:4], torch.tensor(np.outer(weights, weights), dtype=torch.float32))
    images = tiny.normal(tmp_path)
    sharp, blurred = (tiny.fit(tiny.build("dbfad", train_blur=b), images, seed=1).rows for b in (False, True))
    assert sharp[0]["total"] != blurred[0]["total"]


def test_settings_and_sizes_that_cannot_be() -> None:
    for wrong in ({"neck_weight": -1.0}, {"blocks": 0}):
        with pytest.raises(ValueError, match=r"neck_weight is .*expected 0 or more; blocks is"):
            tiny.build("dbfad", **wrong)
    with pytest.raises(ValueError, match="attention is 'height'; expected one of width, all, none"):
        tiny.build("dbfad", attention="height")
    with pytest.raises(ValueError, match=r"\(4, 16\).*double"):
        tiny.build("dbfad", strides=(4, 16))
    with pytest.raises(ValueError, match=r"48 x 64 px.*multiples of 32"):
        tiny.build("dbfad").eval().anomaly_map(torch.rand(1, 3, 48, 64))
    with pytest.raises(ValueError, match="sees nothing of a map of 2 x 2"):
        tiny.build("dbfad", gap=1).eval().anomaly_map(torch.rand(1, 3, 64, 64))
