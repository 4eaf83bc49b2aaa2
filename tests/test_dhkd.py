"""DHKD: the losses of its two phases, the noise, the maps, and its switches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

import kdlib as kd
from kdlib import maps
from kdlib.contract import Batch, Phase
from kdlib.layers.noise import with_noise
from kdlib.methods import preset
from kdlib.methods.dhkd import DHKD, DHKDConfig
from kdlib.runtime import Runtime
from kdlib.training.loader import TrainingImages


def build(**overrides: Any) -> DHKD:
    model = tiny.build("dhkd", **overrides)
    assert isinstance(model, DHKD)
    return model


def batch(count: int = 2, size: tuple[int, int] = (64, 64)) -> Batch:
    images = torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))
    return Batch(image=images, category=torch.zeros(count, dtype=torch.long))


def phases(model: DHKD, root: Path) -> list[Phase]:
    loader = TrainingImages(model.teacher, tiny.normal(root), 4, Runtime(device=torch.device("cpu")))
    return list(model.phases(loader))


def test_defaults() -> None:
    config = preset("dhkd/mvtec")
    assert isinstance(config, DHKDConfig)
    assert (config.lr, config.weight_decay, config.batch_size, config.epochs, config.clip) == (2e-4, 1e-5, 8, 72, 1.0)
    assert (config.kernels, config.hidden, config.clamp, config.position) == ((3, 3, 3, 5), 64, 1.9, 32)
    assert (config.noise, config.affinity, config.student, config.score) == (0.5, 1.0, "feedforward", "distance")


def test_losses_by_hand() -> None:
    model = build(affinity=3.0).eval()
    with torch.no_grad():
        named, pairs = model.loss(batch()), model.pairs(batch().image)
    distance = sum(float(((t - s) ** 2).mean()) for t, s in pairs)
    affinity = 0.0
    for t, s in pairs:
        for image in range(2):
            a, b = (f[image].flatten(1).T / f[image].flatten(1).T.norm(dim=1, keepdim=True) for f in (t, s))
            affinity += float(((a @ a.T - b @ b.T) ** 2).mean()) / 2
    assert float(named["distance"]) == pytest.approx(distance, rel=1e-4)
    assert float(named["affinity"]) == pytest.approx(affinity, rel=1e-4)
    assert float(named["total"]) == pytest.approx(distance + 3 * affinity, rel=1e-4)


def test_likelihood_loss() -> None:
    """A fresh flow permutes, so that its loss is half the mean square of the features."""
    model = build()
    with torch.no_grad():
        named = model.likelihood_loss(batch())
    expected = [float(0.5 * f.pow(2).mean()) for f in model.features(batch().image)]
    assert [float(named[f"level_{i}"]) for i in range(3)] == pytest.approx(expected, rel=1e-4)
    assert float(named["total"]) == pytest.approx(sum(expected), rel=1e-4)


def test_two_phases(tmp_path: Path) -> None:
    model = build(steps=6, teacher_steps=1.5)
    first, second = phases(model, tmp_path)
    assert (first.name, first.steps, second.name, second.steps) == ("flow teacher", 9, "student", 6)
    assert first.clip == second.clip == 1.0
    flows, students = ({id(p) for p in phase.parameters} for phase in (first, second))
    everything = {id(p) for p in model.parameters() if p.is_floating_point()}
    assert not flows & students
    assert flows | students | {id(p) for p in model.teacher.parameters()} == everything


def test_features_and_maps_are_standardised_on_the_training_images(tmp_path: Path) -> None:
    model, images = build(), tiny.normal(tmp_path)
    tiny.fit(model, images)
    x = torch.stack([item["image"] for item in images])
    with torch.no_grad():
        for f in model.features(x):
            torch.testing.assert_close(f.mean((0, 2, 3)), torch.zeros(f.shape[1]), atol=1e-3, rtol=0)
            torch.testing.assert_close(f.std((0, 2, 3)), torch.ones(f.shape[1]), atol=1e-2, rtol=0)
        for level in model.score_maps(x).values():
            assert len(level) == 3
            for m in level:
                assert abs(float(m.mean())) < 1e-3 and float(m.std()) == pytest.approx(1, abs=0.01)


def test_training_keeps_the_flow_invertible_and_improves_it(tmp_path: Path) -> None:
    model, images = build(steps=20), tiny.normal(tmp_path)
    history = tiny.fit(model, images)
    totals = [row["total"] for row in history.rows if row["phase"] == "flow teacher"]
    assert totals[-1] < totals[0] == pytest.approx(1.5, abs=0.2)
    features = model.features(torch.stack([item["image"] for item in images]))
    for flow, f, (z, _) in zip(model.flows, features, model.latents(features), strict=True):
        assert (flow.inverse(z) - f).abs().max() < 1e-4  # type: ignore[operator]


def test_the_students_phase_leaves_the_flow_alone() -> None:
    model = build()
    model.loss(batch())["total"].backward()
    assert all(p.grad is None for p in model.flows.parameters())
    assert all(p.grad is not None for p in model.student_parameters())
    model = build()
    model.likelihood_loss(batch())["total"].backward()
    assert all(p.grad is None for p in model.student_parameters())


def test_noise() -> None:
    torch.manual_seed(0)
    clean = [torch.zeros(400, 3, 32, 32), torch.zeros(400, 5, 8, 8)]
    fine, coarse = with_noise(clean, 0.5)
    touched = (fine != 0).any(1)
    everywhere = touched.flatten(1).all(1)
    assert 0.4 < everywhere.float().mean() < 0.6
    strength = fine[everywhere].std((1, 2, 3))
    assert strength.max() < 0.52 and float(strength.mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal((coarse != 0).any(1).flatten(1).all(1), everywhere)
    for image in touched[~everywhere]:  # a rectangle: its rows and columns tell everything
        assert torch.equal(image, image.any(1)[:, None] & image.any(0)[None, :])
    assert 0 < touched[~everywhere].float().mean() < 0.3
    assert all(torch.equal(a, b) for a, b in zip(with_noise(clean, 0), clean, strict=True))


def test_noise_reaches_the_student_in_training_only() -> None:
    model = build(noise=1.0)
    seen: list[torch.Tensor] = []
    taught: list[torch.Tensor] = []
    model.students[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.flows[0].register_forward_pre_hook(lambda _, inputs: taught.append(inputs[0]))
    model.loss(batch()), model.eval().loss(batch()), model.pairs(batch().image)
    clean = model.features(batch().image)[0]
    assert not torch.equal(seen[0], clean) and torch.equal(seen[1], clean) and torch.equal(seen[2], clean)
    assert all(torch.equal(t, clean) for t in taught)


def test_scores(tmp_path: Path) -> None:
    model = build()
    tiny.fit(model, tiny.normal(tmp_path))
    x, found = batch().image, {}
    for score in ("distance", "likelihood", "both"):
        model.config = replace(model.config, score=score)  # type: ignore[arg-type]
        found[score] = model.anomaly_map(x)
    torch.testing.assert_close(found["both"], found["distance"] + found["likelihood"], atol=1e-4, rtol=1e-4)
    levels = model.score_maps(x)["distance"]
    torch.testing.assert_close(found["distance"], maps.fuse(levels, (64, 64)))
    raw = [(t - s).pow(2).mean(1, keepdim=True) for t, s in model.pairs(x)]
    for m, r in zip(levels, raw, strict=True):  # standardising is linear
        assert np.corrcoef(m.detach().flatten(), r.detach().flatten())[0, 1] > 0.9999


def test_the_teacher_sees_clean_features() -> None:
    model = build()
    features = model.features(batch().image)
    pairs = model.compare(features, [f + 1 for f in features])
    for (t, s), (z, _), (_, plain) in zip(pairs, model.latents(features), model.pairs(batch().image), strict=True):
        assert torch.equal(t, z) and not torch.equal(s, plain)


@pytest.mark.parametrize(
    "options",
    [
        {"student": "flow"},
        {"coupling": "single", "kernels": (3, 1), "position": 0},
        {"frequency": "gate"},
        {"frequency": "none", "affinity": 0.0, "noise": 0.0},
        {"pool_first": False, "strides": (8, 16), "clip": None},
        {"backbone": "resnet18", "weights": "random", "kernels": (3, 3, 3, 5)},
    ],
)
def test_switches(options: dict[str, Any], tmp_path: Path) -> None:
    model = build(**options)
    history = tiny.fit(model, tiny.normal(tmp_path))
    assert len(history.rows) == 8
    amap = model.anomaly_map(batch(size=(72, 88)).image)
    assert amap.shape == (2, 1, 72, 88) and torch.isfinite(amap).all()


def test_the_first_level_can_be_pooled() -> None:
    x = batch(size=(72, 88)).image
    plain, pooled = build(pool_first=False).features(x), build(pool_first=True).features(x)
    assert [f.shape[-2:] for f in pooled] == [(9, 11), (9, 11), (5, 6)]
    torch.testing.assert_close(pooled[0], torch.nn.functional.avg_pool2d(plain[0], 2))
    assert torch.equal(plain[1], pooled[1])


def test_a_run_can_be_taken_up_in_both_phases(tmp_path: Path) -> None:
    images = tiny.normal(tmp_path)
    whole = build(seed=1, steps=2)
    rows = tiny.fit(whole, images).rows

    def stop_at(count: int) -> Any:
        def stop(history: kd.History) -> None:
            if len(history.rows) == count:
                raise KeyboardInterrupt

        return stop

    for count in (2, 4):
        state = tmp_path / f"state{count}"
        with pytest.raises(KeyboardInterrupt):
            tiny.fit(build(seed=1, steps=2), images, state=state, save_every=0, on_step=stop_at(count))
        again = build(seed=1, steps=2)
        assert tiny.fit(again, images, state=state).rows == rows
        assert tiny.equal(whole, again)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    model, norms = build(clip=1e-3), []
    plain = model.optimiser

    def watched(parameters: Any) -> torch.optim.Optimizer:
        optimiser = plain(chosen := list(parameters))
        optimiser.register_step_pre_hook(
            lambda *_: norms.append(sum(float(p.grad.norm()) ** 2 for p in chosen if p.grad is not None) ** 0.5)
        )
        return optimiser

    model.optimiser = watched  # type: ignore[method-assign]
    tiny.fit(model, tiny.normal(tmp_path))
    assert len(norms) == 8 and norms == pytest.approx([1e-3] * 8, rel=1e-3)


def test_settings_that_cannot_be() -> None:
    for wrong in ({"noise": -1.0}, {"affinity": -1.0}, {"teacher_steps": 0.0}, {"blocks": 0}, {"width": 0}):
        with pytest.raises(ValueError, match=r"dhkd: noise is .* more than 0"):
            build(**wrong)
    with pytest.raises(ValueError, match=r"'product'.*sum, mean or max"):
        build(fusion="product")
    with pytest.raises(ValueError, match=r"'twin'.*feedforward, flow"):
        build(student="twin")
