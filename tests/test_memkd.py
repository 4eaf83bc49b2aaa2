"""MemKD: what the public code computes, its sizes in both directions, its switches, and what that code gets wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor
from torch.nn import functional as F

import kdlib as kd
from kdlib import losses, maps
from kdlib.contract import Batch
from kdlib.layers.recall import NormalityMemory, RecallTrunk
from kdlib.methods import preset
from kdlib.methods.memkd import MemKD, MemKDConfig

REFERENCE = Path(__file__).parent / "reference" / "memory.npz"
BOTH = ("memkd", "memkd_forward")


@pytest.fixture(scope="module")
def reference() -> dict[str, Tensor]:
    with np.load(REFERENCE) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def agrees(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def build(name: str = "memkd", **options: Any) -> MemKD:
    model = tiny.build(name, **options)
    assert isinstance(model, MemKD)
    return model


def outline(name: str, **options: Any) -> MemKD:
    """A model without numbers, for its sizes."""
    with torch.device("meta"):
        return build(name, **{"weights": "random", **options})


def a_batch(size: int = 64) -> Batch:
    exemplars = Batch(image=torch.rand(3, 3, size, size), category=torch.zeros(3, dtype=torch.long))
    return Batch(image=torch.rand(2, 3, size, size), category=torch.zeros(2, dtype=torch.long), exemplars=exemplars)


def stored(reference: dict[str, Tensor], i: int) -> NormalityMemory:
    """A memory with the reference's keys and values."""
    keys, values = reference[f"keys{i}"], reference[f"values{i}"]
    memory = NormalityMemory(keys.shape[1], slots=len(keys))
    memory.load_state_dict({"keys": keys, "values": values})
    return memory


def weights_of(model: MemKD, *, memory: bool) -> int:
    named = model.student.named_parameters()
    return sum(p.numel() for name, p in named if name.endswith(("keys", "values")) == memory)


@pytest.mark.parametrize(("ask", "stands_for"), [("values", "loss_nm"), ("keys", "loss_nm_keys_mode")])
def test_normality_loss_is_that_of_the_public_codes(reference: dict[str, Tensor], ask: str, stands_for: str) -> None:
    found = with_memories(reference, exemplars_ask=ask, direction="forward")
    exemplars = [reference["exemplar0"], reference["exemplar1"], torch.zeros(4, 1, 1, 1)]
    loss = found.memorise(Batch(image=torch.empty(4), category=torch.empty(4), teacher=exemplars))
    agrees(4 * loss.detach(), reference[stands_for])  # there a sum over the exemplars


def test_the_whole_loss_is_that_of_the_public_code(reference: dict[str, Tensor]) -> None:
    pairs = [(reference[f"teacher{i}"], reference[f"student{i}"]) for i in range(3)]
    distillation = losses.over_levels(pairs, losses.per_position_cosine)["total"] / 3
    agrees(2 * distillation, reference["loss_kd"])  # there a sum over the batch
    alignment = with_memories(reference, orthogonality="signed").alignment().detach()
    agrees(alignment, reference["loss_orth"])
    total = 2 * distillation + 0.1 * reference["loss_nm"] + 0.1 * alignment
    agrees(total, reference["loss_total_lambda_0.1"])


def test_maps_are_those_of_the_public_code_but_for_its_weights_and_its_blur(reference: dict[str, Tensor]) -> None:
    pairs = [(reference[f"teacher{i}"], reference[f"student{i}"]) for i in range(3)]
    levels = [losses.cosine_distance(t, s)[:, None] for t, s in pairs]
    divided = [level / level[0, 0].numel() for level in levels]  # a coarse level there weighs more
    agrees(maps.fuse(divided, (64, 64), blur=0)[:, 0], reference["map_64_no_blur"])
    blurred = maps.gaussian_blur(reference["map_64_no_blur"][:, None], 4.0)[:, 0]
    agrees(blurred, reference["map_64_blur_2d"])
    row_by_row = gaussian_filter1d(reference["map_64_no_blur"][0].numpy(), 4.0, axis=1)  # a mistake: test batches of 1
    agrees(torch.from_numpy(row_by_row), reference["map_64_blur_rowwise"])


def with_memories(reference: dict[str, Tensor], **options: Any) -> MemKD:
    """A model whose memories are the reference's, for the losses that look at nothing else."""
    model = build(strides=(4, 8, 16), slots=7, **options)
    model.student = torch.nn.ModuleList(stored(reference, i) for i in (0, 1))  # type: ignore[assignment]
    return model


def test_defaults_are_those_of_the_public_code() -> None:
    config = preset("memkd/mvtec")
    assert isinstance(config, MemKDConfig)
    assert (config.slots, config.exemplars, config.normality, config.orthogonal) == (50, 16, 0.1, 0.1)
    assert (config.lr, config.peak, config.epochs, config.batch_size) == (0.005, 10, 50, 16)
    assert config.temperature == 1 and config.trainable
    assert (preset("memkd_forward/mvtec").backbone, config.backbone) == ("resnet18", "wide_resnet50_2")


@pytest.mark.parametrize(
    ("name", "backbone", "numbers", "channels"),
    [
        ("memkd_forward", "resnet18", 19_200, [64, 128]),
        ("memkd_forward", "wide_resnet50_2", 76_800, [256, 512]),
        ("memkd", "resnet18", 89_600, [512, 256, 128]),
        ("memkd", "wide_resnet50_2", 358_400, [2048, 1024, 512]),
    ],
)
def test_sizes_are_those_of_the_public_code(name: str, backbone: str, numbers: int, channels: list[int]) -> None:
    model = outline(name, backbone=backbone)
    assert weights_of(model, memory=True) == numbers
    assert [memory.keys.shape[1] for memory in model.memories] == channels
    if (name, backbone) == ("memkd_forward", "resnet18"):
        assert weights_of(model, memory=False) / 1e6 == pytest.approx(3.19, abs=0.005)
    if (name, backbone) == ("memkd_forward", "wide_resnet50_2"):
        assert 4 * numbers == 307_200  # the paper's 0.3 MB


def test_a_stage_behind_a_memory_takes_the_features_and_what_they_recall() -> None:
    forward, reverse = (outline(name, backbone="resnet18").student for name in BOTH[::-1])
    assert [stage[0].conv1.in_channels for stage in forward.stages] == [64, 128, 256]  # type: ignore[union-attr]
    assert [stage[0].conv1.in_channels for stage in reverse.decoder.stages] == [1024, 512, 256]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", BOTH)
def test_losses_add_up_with_their_weights(name: str) -> None:
    batch = a_batch()
    model = build(name, normality=0.3, orthogonal=0.7).eval()
    named = model.loss(batch)
    levels = [named[f"level_{i}"] for i in range(3)]
    torch.testing.assert_close(named["distillation"], torch.stack(levels).mean())
    parts = named["distillation"] + 0.3 * named["normality"] + 0.7 * named["orthogonal"]
    torch.testing.assert_close(named["total"], parts)
    alone = build(name, normality=0, orthogonal=0).eval().loss(batch)
    assert alone.keys() == {"total", "distillation", "level_0", "level_1", "level_2"}
    torch.testing.assert_close(alone["total"], named["distillation"])


def test_exemplars_meet_the_memory_of_their_level() -> None:
    x = torch.rand(2, 3, 64, 64)
    for name, levels in (("memkd", (3, 2, 1)), ("memkd_forward", (0, 1))):
        model = build(name)
        t = model.teach(x)
        met = [(t[level], memory(t[level], "values")) for memory, level in zip(model.memories, levels, strict=True)]
        expected = torch.stack([1 - F.cosine_similarity(f, recalled).mean() for f, recalled in met]).mean()
        torch.testing.assert_close(model.memorise(Batch(image=x, category=torch.zeros(2))), expected)


@pytest.mark.parametrize("name", BOTH)
def test_a_phase_asks_for_exemplars_where_their_loss_counts(name: str, tmp_path: Path) -> None:
    images: Any = tiny.normal(tmp_path, 4)
    (phase,) = build(name, exemplars=3).phases(images)
    (without,) = build(name, exemplars=3, normality=0).phases(images)
    assert (phase.exemplars, without.exemplars) == (3, 0)


@pytest.mark.parametrize("name", BOTH)
def test_memories_are_trained_and_saved_or_frozen_and_saved(name: str, tmp_path: Path) -> None:
    images = tiny.normal(tmp_path)
    for trainable in (True, False):
        model = build(name, trainable=trainable, exemplars=2, steps=2)
        before = {key: tensor.clone() for key, tensor in model.trained_tensors().items()}
        tiny.fit(model, images)
        after = {key: t for key, t in model.trained_tensors().items() if key.endswith((".keys", ".values"))}
        assert len(after) == 2 * len(model.memories)
        assert all(torch.equal(before[key], tensor) is not trainable for key, tensor in after.items())


def test_signed_orthogonality_falls_below_zero_and_the_squared_one_does_not() -> None:
    for kind, least in (("signed", -1.0), ("squared", 1.0)):
        model = build("memkd_forward", orthogonality=kind)
        with torch.no_grad():
            for memory in model.memories:
                memory.keys[:] = torch.ones_like(memory.keys)
                memory.values[:] = -memory.keys
        assert float(model.alignment().detach()) == pytest.approx(2 * least, rel=1e-4)


def test_one_cycle_rises_to_its_peak_and_falls() -> None:
    model = build(peak=4.0, lr=0.01, schedule="constant")
    optimiser, one_cycle = model.optimiser(model.student_parameters()), model.schedule(20)
    assert one_cycle is not None
    schedule, rates = one_cycle(optimiser), []
    for _ in range(20):
        rates.append(schedule.get_last_lr()[0])
        optimiser.step()
        schedule.step()
    assert max(rates) == pytest.approx(0.04) and rates[0] < 0.01 > rates[-1]
    assert (
        build(peak=1.0, schedule="constant").schedule(20) is None and build(schedule="cosine").schedule(20) is not None
    )


def test_forward_follows_strides_that_double_more_than_once() -> None:
    few = build("memkd_forward", strides=(4, 16))
    assert [tuple(s.shape[1:]) for _, s in few.pairs(torch.rand(1, 3, 64, 64))] == [(24, 16, 16), (112, 4, 4)]
    with pytest.raises(ValueError, match=r"level at stride 2 after one at 4.*halves sizes"):
        outline("memkd_forward", strides=(2, 4), backbone="resnet18")


def test_the_forward_student_sees_images_as_teachers_do() -> None:
    student = build("memkd_forward").student
    seen = []
    student.get_submodule("stem").register_forward_hook(lambda _, given, __: seen.append(given[0]))
    x = torch.rand(1, 3, 64, 64)
    student(x, build("memkd_forward").teach(x))
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    torch.testing.assert_close(seen[0], (x - mean) / std)


def test_maps_that_a_student_cannot_have_are_refused() -> None:
    student = build("memkd_forward").student
    assert isinstance(student, RecallTrunk)
    x = torch.rand(1, 3, 64, 64)
    with pytest.raises(ValueError, match=r"64 x 64 px give maps of \[\(15, 15\)"):
        student(x, [torch.rand(1, 24, 15, 15)])


WRONG: tuple[dict[str, Any], ...] = (
    *({"slots": 0}, {"exemplars": 0}, {"embed_blocks": -1}, {"temperature": 0.0}, {"peak": 0.5}, {"normality": -1.0}),
    *({"orthogonal": -0.1}, {"strides": (4,)}, {"direction": "sideways"}),
)


@pytest.mark.parametrize("wrong", WRONG)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        MemKDConfig(**wrong)


def test_one_method_with_two_names() -> None:
    assert kd.build("memkd", direction="forward", strides=(4, 8, 16)).student.__class__ is RecallTrunk
    with pytest.raises(ValueError, match="take memkd"):
        kd.build("memkd_forward", direction="reverse")
