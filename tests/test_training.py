"""Training: killed and taken up again it ends with the same bits; caches change nothing; only normal images enter."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import two_phases

import kdlib as kd
from kdlib.contract import Distiller
from kdlib.runtime import Runtime
from kdlib.training import cache, loader
from kdlib.training.checks import enough_values
from kdlib.training.state import recorded

Make = Callable[[], Distiller]
MAKERS: dict[str, Make] = {
    "sgd": lambda: tiny.build("stpm", steps=6),
    "adam": lambda: tiny.build("rd", steps=6),
    "two phases, one cycle": lambda: two_phases.build(schedule="one cycle"),
}


@pytest.fixture
def images(tmp_path: Path) -> kd.data.ImageSet:
    return tiny.normal(tmp_path / "images", 7)


@pytest.mark.parametrize("which", MAKERS)
def test_killed_runs_end_like_whole_ones(which: str, images: kd.data.ImageSet, tmp_path: Path) -> None:
    make = MAKERS[which]
    whole = make()
    expected = tiny.fit(whole, images, seed=3)
    steps = len(expected.rows)
    kills = sorted(random.Random(which).sample(range(2, steps + 1), 2))
    for at in [*kills, steps + 1]:
        killed = make()
        torch.rand(at)  # the generator's position before a run must not matter
        try:
            history = tiny.fit(killed, images, seed=3, state=tmp_path / "state", save_every=0, on_step=tiny.killer(at))
        except tiny.KilledError:
            continue
    assert tiny.equal(killed, whole)
    assert history.rows == expected.rows and history.images == expected.images
    assert history.seconds > 0 and not killed.training


@pytest.mark.parametrize("at", [1, 6, 7, 12])
def test_kills_at_the_ends_of_phases(at: int, images: kd.data.ImageSet, tmp_path: Path) -> None:
    whole, killed, again = two_phases.build(), two_phases.build(), two_phases.build()
    tiny.fit(whole, images)
    with pytest.raises(tiny.KilledError):
        tiny.fit(killed, images, state=tmp_path, save_every=0, on_step=tiny.killer(at))
    tiny.fit(again, images, state=tmp_path, save_every=1e9)
    assert tiny.equal(again, whole) and float(whole.mean) > 0


def test_a_run_killed_before_its_first_save_starts_anew(images: kd.data.ImageSet, tmp_path: Path) -> None:
    whole, killed = (tiny.build("stpm") for _ in range(2))
    tiny.fit(whole, images)
    with pytest.raises(tiny.KilledError):
        tiny.fit(killed, images, state=tmp_path / "state", on_step=tiny.killer(3))
    assert not list((tmp_path / "state").glob("*.safetensors"))
    tiny.fit(again := tiny.build("stpm"), images, state=tmp_path / "state")
    assert tiny.equal(again, whole)


def test_a_complete_run_is_not_trained_again(images: kd.data.ImageSet, tmp_path: Path) -> None:
    first, second = two_phases.build(), two_phases.build()
    history = tiny.fit(first, images, state=tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "phase_0.safetensors",
        "phase_1.safetensors",
    ]
    again = tiny.fit(second, images, state=tmp_path, on_step=tiny.killer(1))
    assert tiny.equal(first, second)
    assert again.rows == history.rows and again.seconds > 0.8 * history.seconds


CHILD = """
import sys
from pathlib import Path
import tiny, two_phases
images = tiny.load(Path(sys.argv[1]), size=tiny.SIZE, calib_share=0).train
model = two_phases.build(steps=12)
tiny.fit(model, images, state=Path(sys.argv[2]), save_every=0, on_step=lambda h: print(len(h.rows), flush=True))
"""


def test_sigkill(images: kd.data.ImageSet, tmp_path: Path) -> None:
    whole, again = two_phases.build(steps=12), two_phases.build(steps=12)
    expected = tiny.fit(whole, images)
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(kd.__file__).parents[1])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(tmp_path / "images"), str(tmp_path / "state")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) == 8:
                time.sleep(0.01)
                os.kill(child.pid, signal.SIGKILL)
                break
    assert child.returncode == -signal.SIGKILL
    steps: list[int] = []
    tiny.fit(again, images, state=tmp_path / "state", on_step=lambda h: steps.append(len(h.rows)))
    assert 6 < steps[0] < 24, "the run should have been taken up, not started anew"
    assert tiny.equal(again, whole) and len(expected.rows) == 24


def test_the_state_of_another_run_is_refused(images: kd.data.ImageSet, tmp_path: Path) -> None:
    with pytest.raises(tiny.KilledError):
        tiny.fit(tiny.build("stpm"), images, state=tmp_path / "a", save_every=0, on_step=tiny.killer(3))
    for other, options, word in (
        (tiny.build("stpm"), {"seed": 1}, "seed"),
        (tiny.build("stpm", lr=0.1), {}, "lr"),
        (tiny.build("rd"), {}, "method"),
    ):
        with pytest.raises(ValueError, match=rf"another run.*{word}.*[Cc]hoose another folder"):
            tiny.fit(other, images, state=tmp_path / "a", **options)
    fewer = images.subset(range(6))
    renamed = images.subset([1, 2, 3, 4, 5, 6, 0])
    for changed in (fewer, renamed):
        with pytest.raises(ValueError, match=r"another run.*files"):
            tiny.fit(tiny.build("stpm"), changed, state=tmp_path / "a")
    tiny.fit(tiny.build("stpm"), images, state=tmp_path / "b")
    with pytest.raises(ValueError, match="another run"):
        tiny.fit(tiny.build("stpm"), images, seed=1, state=tmp_path / "b")


def test_a_damaged_state_is_named(images: kd.data.ImageSet, tmp_path: Path) -> None:
    with pytest.raises(tiny.KilledError):
        tiny.fit(tiny.build("stpm"), images, state=tmp_path / "state", save_every=0, on_step=tiny.killer(3))
    path, model = tmp_path / "state" / "running.safetensors", tiny.build("stpm")
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"nonsense"):
        path.write_bytes(damaged)
        for precision in ("fp32", "auto"):
            with pytest.raises(ValueError, match=r"running\.safetensors.*damaged"):
                tiny.fit(model, images, state=tmp_path / "state", precision=precision)


def test_a_run_that_is_taken_up_keeps_its_precision(
    images: kd.data.ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(tiny.KilledError):
        bf16: dict[str, Any] = {"precision": "bf16", "save_every": 0, "on_step": tiny.killer(2)}
        tiny.fit(tiny.build("stpm", steps=2), images, state=tmp_path / "state", **bf16)
    assert recorded(tmp_path / "state")["precision"] == "bf16"
    monkeypatch.setattr("kdlib.runtime._native", lambda device: "fp32")
    history = tiny.fit(tiny.build("stpm", steps=2), images, precision="auto", state=tmp_path / "state")
    assert history.runtime == "cpu, bf16" and len(history.rows) == 2


def test_cached_features_change_nothing(
    images: kd.data.ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {use: tiny.fit(tiny.build("rd"), images, cache=use).losses() for use in (True, False)}
    assert runs[True] == pytest.approx(runs[False], rel=1e-4)
    monkeypatch.setattr(cache, "MEMORY_LIMIT", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert tiny.fit(tiny.build("rd"), images, cache=True).losses() == runs[True]
    assert not list(tmp_path.glob("kdlib-teacher-*"))


def feature_cache(images: kd.data.ImageSet, runtime: Runtime) -> cache.TeacherCache | None:
    teacher = kd.teachers.teacher("resnet18", weights="random")
    return loader.TrainingImages(teacher, images, 4, runtime).features


def test_features_past_the_limit_are_mapped(images: kd.data.ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(device=torch.device("cpu"))
    memory = feature_cache(images, runtime)
    monkeypatch.setattr(cache, "MEMORY_LIMIT", 0)
    disk = feature_cache(images, runtime)
    assert memory and disk and disk.on_disk and not memory.on_disk
    order = torch.tensor([5, 0, 6])
    direct = kd.teachers.teacher("resnet18", weights="random")(torch.stack([images[int(i)]["image"] for i in order]))
    for a, b, c in zip(memory[order], disk[order], direct, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(cache, "DISK_LIMIT", 0)
    assert feature_cache(images, runtime) is None


def test_only_normal_images_train(tmp_path: Path) -> None:
    data = tiny.data(tmp_path)
    with pytest.raises(ValueError, match="4 training images are anomalous"):
        tiny.fit(tiny.build(), data.test)
    with pytest.raises(ValueError, match="no training images"):
        tiny.fit(tiny.build(), data.train.subset([]))


def test_a_seed_is_a_whole_number(images: kd.data.ImageSet) -> None:
    with pytest.raises(ValueError, match="seed is 'a'; expected a whole number"):
        tiny.fit(tiny.build(), images, seed="a")


def test_a_diverging_loss_stops_the_run(images: kd.data.ImageSet) -> None:
    with pytest.raises(ValueError, match=r"loss became (nan|inf) at step \d+ of phase 'rd'; lower the learning rate"):
        tiny.fit(tiny.build("rd", lr=1e30, steps=30), images)


def test_a_batch_of_one_position_is_refused_with_a_remedy(tmp_path: Path) -> None:
    small = tiny.normal(tmp_path, size=32)
    for few, batch_size in ((small, 1), (small.subset([0]), 16)):
        with pytest.raises(ValueError, match=r"a batch \[1, 3, 32, 32\] leaves .* larger size, or raise batch_size"):
            tiny.fit(tiny.build("rd", weights="random", batch_size=batch_size), few)
    assert tiny.fit(tiny.build("rd", weights="random", batch_size=2, steps=1), small).rows


def test_other_errors_of_a_loss_pass_through() -> None:
    with pytest.raises(ValueError, match=r"^of the method itself$"), enough_values(torch.zeros(1, 3, 8, 8)):
        raise ValueError("of the method itself")


def test_one_image_and_large_batches(images: kd.data.ImageSet) -> None:
    history = tiny.fit(tiny.build("stpm", batch_size=64), images.subset([0]))
    assert len(history.rows) == 4 and history.images == 4
    assert tiny.build("stpm/mvtec", steps=None, batch_size=2, weights="random").steps(7) == 200 * 4


def test_workers_read_the_same_images(images: kd.data.ImageSet) -> None:
    assert tiny.fit(tiny.build(), images, workers=1).rows == tiny.fit(tiny.build(), images).rows


def test_history_speaks_of_speed(images: kd.data.ImageSet) -> None:
    history = tiny.fit(tiny.build("rd"), images)
    assert history.images == 16 and history.runtime == "cpu, fp32"
    assert history.images_per_second == pytest.approx(16 / history.seconds)
    assert len(history.losses("level_2")) == 4 and history.losses("no such") == []
    assert json.dumps(history.rows)


PROCESS = """
import sys
from pathlib import Path
import torch
from kdlib.runtime import processes
from kdlib import cli
from kdlib.trials import runner
plain = runner.fit
def fit(model, *args, **options):
    history = plain(model, *args, **options)
    torch.save(model.state_dict(), Path(sys.argv[1]) / f"rank{processes().process_index}.pth")
    return history
runner.fit = fit
cli.app(sys.argv[2:])
"""


@pytest.mark.slow
def test_two_processes(tmp_path: Path) -> None:
    tiny.data(tmp_path / "data", train=9)
    (tmp_path / "process.py").write_text(PROCESS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    run = ["run", "stpm", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"), "--size", "64"]
    short = ["--steps", "4", "--batch", "5", "--precision", "fp32", "--maps", "plain"]
    command = [*launch, str(tmp_path / "process.py"), str(tmp_path), *run, *short]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mean over categories") == 1, done.stdout
    assert len((tmp_path / "out" / "metrics.csv").read_text().splitlines()) == 2
    ranks = [torch.load(tmp_path / f"rank{rank}.pth", weights_only=True) for rank in range(2)]
    assert all(torch.equal(ranks[0][key], ranks[1][key]) for key in ranks[0])
    fresh = tiny.build("stpm").state_dict()
    assert any(not torch.equal(ranks[0][key], fresh[key]) for key in fresh)
