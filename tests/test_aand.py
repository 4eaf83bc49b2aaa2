"""AAND: amplifiers and losses against the published code, which stage trains what, both maps, switches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

import kdlib as kd
from kdlib import losses
from kdlib.contract import Batch
from kdlib.layers import supervision
from kdlib.layers.amplifier import Amplifier, position_map
from kdlib.layers.transformer import TransformerStudent
from kdlib.methods import preset
from kdlib.methods.aand import AAND, AANDConfig
from kdlib.methods.rd import RD

REFERENCE = np.load(Path(__file__).parent / "reference" / "aand.npz")
STAGE_I = ("focal", "push")


def stored(name: str) -> Tensor:
    return torch.from_numpy(REFERENCE[name])


def levels(name: str) -> list[Tensor]:
    return [stored(f"{name}{i}") for i in range(3)]


def agrees(found: Tensor, name: str) -> None:
    expected = stored(name)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max(), name


def maps(name: str) -> list[Tensor]:
    """Gates [B, 1, h, w] of the published code's [B, h * w, 1]."""
    sides = [f.shape[-2:] for f in levels("feature")]
    return [g.mT.unflatten(2, side) for g, side in zip(levels(name), sides, strict=True)]


def pushed(limits: tuple[int, int] = (10_000, 10_000), *, product: bool = True) -> Tensor:
    parts = []
    for i, (f, t) in enumerate(zip(levels("feature"), levels("amplified"), strict=True)):
        mask = supervision.covered(stored("mask"), f)
        on = supervision.covered(stored("fore_mask"), f) if product else torch.ones_like(mask)
        assert torch.equal(mask, stored(f"mask_level{i}"))
        assert not product or torch.equal(on, stored(f"fore_level{i}"))
        parts.append(supervision.push(f, t, on & ~mask, mask, 0.3, limits))
    return torch.stack(parts).sum()


@pytest.fixture
def published() -> Amplifier:
    """An amplifier with the weights that the published code was run with."""
    amplifier = Amplifier(8, items=5)
    names = {"match": "projs.0", "scale": "projs2.0"}
    own = {
        key: stored(f"rar/{names[part]}.{rest}")
        for key in amplifier.state_dict()
        if "." in key
        for part, _, rest in [key.partition(".")]
    }
    amplifier.load_state_dict(own | {"memory": stored("rar/K_list.0")[0]})
    return amplifier


def test_an_amplifier_is_that_of_the_published_code(published: Amplifier) -> None:
    f = stored("rar_in")
    agrees(published.match(f + position_map(f)), "rar_p1")
    agrees(published.scale(f), "rar_p2")
    gate = published.gate(f)
    agrees(gate.flatten(2).mT, "rar_gate")
    agrees(gate * published.residual(f), "rar_delta_soft")
    agrees(published(f), "rar_out_soft")
    hard = supervision.covered(stored("mask"), f).float()
    agrees(hard * published.residual(f), "rar_delta_hard")
    torch.testing.assert_close(published(f, hard), f + stored("rar_delta_hard"))


def test_positions_are_those_of_the_published_code() -> None:
    agrees(position_map(torch.empty(1, 8, 4, 6))[0], "positional_8_4x6")
    agrees(position_map(torch.empty(1, 16, 16, 16))[0, :, ::5, ::3], "positional_16_16x16_sub")
    assert torch.equal(position_map(torch.empty(1, 6, 4, 6)), position_map(torch.empty(1, 8, 4, 6))[:, :6])


def test_losses_are_those_of_the_published_code() -> None:
    features = levels("feature")
    masks = [supervision.covered(stored("mask"), f) for f in features]
    focal = torch.stack([supervision.focal(w, m) for w, m in zip(maps("gate"), masks, strict=True)]).sum()
    agrees(focal, "loss_focal")
    agrees(pushed(), "loss_amplify_all")
    agrees(pushed(product=False), "loss_amplify_all_no_fore")
    agrees(focal + 0.1 * pushed(), "loss_stage1_all")
    distances = [losses.cosine_distance(f, t)[:, None] for f, t in zip(features, levels("amplified"), strict=True)]
    kept = [supervision.weighted_mean(d, ~m) for d, m in zip(distances, masks, strict=True)]
    agrees(torch.stack(kept).sum(), "loss_normal_unused")
    pairs = list(zip(levels("amplified"), levels("student"), strict=True))
    hard = losses.over_levels(pairs, lambda t, s: losses.hardest_cosine(t, s) + losses.global_cosine(t, s))
    agrees(hard["total"], "loss_hard_kd")


def test_the_push_of_chosen_positions_is_that_of_the_published_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stored indices count the positions of a mask; here they are put in the place of the random ones."""
    chosen = iter(stored(f"index_{kind}{i}") for i in range(3) for kind in ("normal", "anomaly"))

    def drawn(mask: Tensor, limit: int) -> tuple[Tensor, Tensor]:
        index = mask.nonzero()[:, 0][next(chosen)]
        return index, mask[index]

    monkeypatch.setattr(supervision, "drawn", drawn)
    agrees(pushed(), "loss_amplify_indexed")


def test_drawn_positions_lie_in_the_mask_while_there_are_any() -> None:
    mask = torch.zeros(100, dtype=torch.bool)
    mask[10:30] = True
    index, real = supervision.drawn(mask, 15)
    assert real.all() and len(set(index.tolist())) == 15
    index, real = supervision.drawn(mask, 50)
    assert len(index) == 50 and int(real.sum()) == 20
    empty = supervision.push(
        torch.rand(1, 4, 5, 5), torch.rand(1, 4, 5, 5), *2 * [mask[:25].view(1, 1, 5, 5) & False], 0.3, (9, 9)
    )
    assert empty == 0


def test_the_push_by_hand() -> None:
    """One normal and one abnormal position: cosine 0.6 before, 0.8 after, margin 0.3."""
    f = torch.tensor([[1.0, 0.6], [0.0, 0.8]])[None, :, None]
    t = torch.tensor([[1.0, 0.8], [0.0, 0.6]])[None, :, None]
    normal = torch.tensor([True, False])[None, None, None]
    assert supervision.push(f, t, normal, ~normal, 0.3, (9, 9)) == pytest.approx(0.8 - 0.6 + 0.3)
    assert supervision.push(f, f.flip(3) * torch.tensor([1.0, -1.0]), normal, ~normal, 0.3, (9, 9)) == 0


def test_the_gate_of_a_perfect_match() -> None:
    """Cosine 1 with one abnormal key and -1 with all others: (e^5 + 49 e^-5) / (e^5 + 99 e^-5)."""
    amplifier = Amplifier(4)
    query = torch.tensor([1.0, 0.0, 0.0, 0.0])
    amplifier.match = torch.nn.Identity()
    with torch.no_grad():
        amplifier.memory.copy_(-query.expand(100, 4))
        amplifier.memory[50] = query
    f = query[None, :, None, None] - position_map(torch.empty(1, 4, 1, 1))
    expected = (exp(5) + 49 * exp(-5)) / (exp(5) + 99 * exp(-5))
    assert float(amplifier.gate(f).detach()) == pytest.approx(expected, abs=1e-6) == pytest.approx(0.9977, abs=5e-5)


def test_a_fresh_gate_is_half_open_and_residuals_are_bounded() -> None:
    amplifier, f = Amplifier(64), torch.rand(4, 64, 16, 16)
    assert float(amplifier.gate(f).detach().mean()) == pytest.approx(0.5, abs=0.05)
    assert (amplifier.residual(f).abs() <= f.abs()).all()
    amplified = amplifier(f)
    assert (amplified >= 0).all() and (amplified <= 2 * f).all()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(amplifier.gate(f), amplifier.gate(f).float(), rtol=0.05, atol=0.05)


def build(**overrides: Any) -> AAND:
    model = tiny.build("aand", **overrides)
    assert isinstance(model, AAND)
    return model.eval()


def a_batch(count: int = 2) -> Batch:
    return Batch(image=torch.rand(count, 3, 64, 64), category=torch.zeros(count, dtype=torch.long))


def defective(batch: Batch) -> Batch:
    mask = torch.zeros(len(batch.image), 1, 64, 64, dtype=torch.bool)
    mask[..., :24, :24] = True
    views = {"defective": torch.where(mask, 1 - batch.image, batch.image), "mask": mask, "foreground": ~mask | mask}
    return Batch(image=batch.image, category=batch.category, views=views)


def test_defaults_are_those_of_the_official_code() -> None:
    c = preset("aand/mvtec")
    assert isinstance(c, AANDConfig)
    assert (c.backbone, c.lr, c.betas, c.batch_size, c.epochs) == ("wide_resnet50_2", 0.005, (0.5, 0.999), 16, 120)
    assert (c.hardest, c.items, c.push, c.push_weight, c.clean, c.milestones) == (10, 50, 0.3, 0.1, 0.2, (0.8, 0.9))
    assert c.true_gate and round(c.epochs * c.amplify_steps) == 100 and (c.normals, c.anomalies) == (5000, 1000)
    with torch.device("meta"):
        model = kd.build("aand/mvtec", weights="random")
    sizes = [sum(p.numel() for p in a.parameters()) / 1e6 for a in model.amplifiers]  # type: ignore[attr-defined]
    assert sizes == pytest.approx([1.08, 4.25, 6.40], abs=0.005) and sum(sizes) == pytest.approx(11.73, abs=0.01)


def test_stages_train_one_part_each_and_leave_the_teacher_alone(tmp_path: Path) -> None:
    images, model = tiny.normal(tmp_path), build(amplify_steps=0.5)
    ends: dict[str, dict[str, Tensor]] = {}

    def note(history: kd.History) -> None:
        ends[history.rows[-1]["phase"]] = {name: t.clone() for name, t in model.trained_tensors().items()}

    start = {name: t.clone() for name, t in model.trained_tensors().items()}
    history = tiny.fit(model, images, on_step=note)
    assert [row["phase"] for row in history.rows] == ["amplifiers"] * 2 + ["student"] * 4
    assert all(set(STAGE_I) <= row.keys() for row in history.rows[:2])
    changed = [
        {name.split(".")[0] for name, t in after.items() if not torch.equal(t, before[name])}
        for before, after in ((start, ends["amplifiers"]), (ends["amplifiers"], ends["student"]))
    ]
    assert changed == [{"amplifiers"}, {"student"}]


def test_features_are_amplified_after_the_cache_and_the_student_learns_those() -> None:
    model, batch = build(), a_batch()
    vanilla = model.teacher(batch.image)
    advanced = [amplify(f) for amplify, f in zip(model.amplifiers, vanilla, strict=True)]
    for handed in (None, vanilla):
        pairs = model.pairs(batch.image, handed)
        assert all(torch.equal(t, a) for (t, _), a in zip(pairs, advanced, strict=True))
        assert not pairs[0][0].requires_grad
    expected = losses.over_levels(model.pairs(batch.image), losses.global_cosine)["total"]
    worst = losses.over_levels(model.pairs(batch.image), losses.hardest_cosine)["total"]
    torch.testing.assert_close(model.loss(batch)["total"], expected + worst)


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_both_stages_have_maps() -> None:
    x = torch.rand(2, 3, 64, 64)
    student, teacher, both = (build(seed=1, score=score).level_maps(x) for score in ("student", "teacher", "both"))
    assert same(both, [*teacher, *student]) and not same(teacher, student)
    model = build(seed=1)
    vanilla = model.teacher(x)
    louder = [losses.cosine_distance(f, t)[:, None] for f, t in zip(vanilla, model.advance(vanilla), strict=True)]
    assert same(teacher, louder)
    assert model.whitens and not build(score="teacher").whitens


def test_gate_and_residual_learn_from_one_loss_each() -> None:
    model, batch = build(), defective(a_batch())
    amplifier = model.amplifiers[0]
    named = model.amplification_loss(batch)
    assert named.keys() == {"total", *STAGE_I}
    named["focal"].backward(retain_graph=True)
    assert amplifier.memory.grad is not None and amplifier.scale[0].weight.grad is None
    before = amplifier.memory.grad.clone()
    named["push"].backward()
    assert torch.equal(amplifier.memory.grad, before) and amplifier.scale[0].weight.grad is not None
    soft = build(true_gate=False, preserve_weight=1.0)
    named = soft.amplification_loss(batch)
    named["push"].backward()
    assert soft.amplifiers[0].memory.grad is not None and named["preserve"] > 0


def test_switches() -> None:
    x, batch = torch.rand(2, 3, 64, 64), a_batch()
    plain = build(amplifier="none", hardest=0, seed=1)
    assert not len(plain.amplifiers)
    reverse = tiny.build("rd", steps=4, seed=1).eval()
    assert isinstance(reverse, RD) and torch.equal(plain.loss(batch)["total"], reverse.loss(batch)["total"])
    opened = build(amplifier="open")
    for (f, t), amplify in zip(opened.stages(x)["teacher"], opened.amplifiers, strict=True):
        torch.testing.assert_close(t, f + amplify.residual(f))
    assert opened.amplification_loss(defective(batch)).keys() == {"total", "push"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"push": -0.1}, "push is -0.1"),
        ({"amplify_steps": 0.0}, "amplify_steps is 0.0"),
        ({"items": 0}, "items is 0"),
        ({"milestones": (0.8, 9.0)}, "expected shares above 0"),
        ({"clean": 1.0}, "some images must get a defect"),
        ({"amplifier": "none", "score": "both"}, "a map of stage I needs amplifiers"),
        ({"amplifier": "closed"}, "gated, open, none"),
        ({"preserve_weight": 0.1}, "while the mask is the gate; set true_gate=False"),
        ({"amplifier": "open", "push_weight": 0.0}, "nothing would train the residuals"),
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**wrong)


def test_textures_are_looked_for_before_training_and_not_when_a_model_is_built(tmp_path: Path) -> None:
    model = build(textures=str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"textures is '.*none', .*'rendered'"):
        tiny.fit(model, tiny.normal(tmp_path / "images", 4))


def test_a_vision_transformer_teaches_a_transformer(tmp_path: Path) -> None:
    vit = {"backbone": "test_vit", "weights": "random", "teacher_blocks": (2, 4, 6), "true_gate": False}
    model = build(**vit)
    x = torch.rand(2, 3, 64, 96)
    pairs = model.pairs(x)
    assert [tuple(s.shape) for _, s in pairs] == [(2, 64, 4, 6)] * 3 and isinstance(model.student, TransformerStudent)
    assert model.student.position.shape == (1, 64, 16, 16) and len(model.student.layers) == 6
    before = [s for _, s in pairs]
    with torch.no_grad():  # the fourth layer reaches the second level and those behind it
        model.student.layers[3].mlp.fc2.bias.add_(1)
    after = [s for _, s in model.pairs(x)]
    assert [torch.equal(a, b) for a, b in zip(before, after, strict=True)] == [True, False, False]
    history = tiny.fit(model, tiny.normal(tmp_path))
    assert {row["phase"] for row in history.rows} == {"amplifiers", "student"}
    assert model.anomaly_map(x).shape == (2, 1, 64, 96)
    with pytest.raises(ValueError, match="depth is 4; expected a multiple of the 3 levels"):
        build(**vit, depth=4)
    with pytest.raises(ValueError, match=r"needs equal ones: blocks of a vision transformer"):
        TransformerStudent(kd.teachers.teacher("test_resnet", weights="random"))


def test_pairs_of_shifted_images_are_a_second_term(tmp_path: Path) -> None:
    model = build(shifted=0.5, structure=2.0)
    rows = tiny.fit(model, tiny.normal(tmp_path)).rows
    assert "shifted" not in rows[0] and all(row["shifted"] > 0 for row in rows if row["phase"] == "student")
    batch, twin = a_batch(), torch.rand(2, 3, 64, 64)
    both = model.loss(replace(batch, views={"shifted": twin}))
    alone, other = model.loss(batch)["total"], model.loss(replace(batch, image=twin))["total"]
    torch.testing.assert_close(both["total"], alone + 0.5 * other)
    plain = losses.over_levels(model.pairs(batch.image), lambda t, s: losses.channel_kl(t, s, reduction="vandgnl"))
    without = build(seed=3, structure=0.0)
    without.load_state_dict(model.state_dict())
    torch.testing.assert_close(alone, without.loss(batch)["total"] + 2 * plain["total"])
