"""What training writes: full discs, long histories, damaged states, two runs in one folder or one process."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors import SafetensorError

import kdlib as kd
from kdlib import files
from kdlib.data import records
from kdlib.files import alone, expanded, read_header, write_tensors, write_text
from kdlib.randomness import seeded
from kdlib.runtime import Runtime
from kdlib.training import cache, loader

CPU = Runtime(device=torch.device("cpu"))


@pytest.fixture
def images(tmp_path: Path) -> kd.data.ImageSet:
    return tiny.normal(tmp_path / "images", 7)


@pytest.fixture
def killed(images: kd.data.ImageSet, tmp_path: Path) -> Path:
    """The state of a run that was killed after two of four steps."""
    with pytest.raises(tiny.KilledError):
        tiny.fit(tiny.build("stpm"), images, state=tmp_path / "state", save_every=0, on_step=tiny.killer(3))
    return tmp_path / "state"


def test_a_full_disc_is_an_os_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: Any, path: Path, meta: Any) -> None:
        Path(path).write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    write_tensors(tmp_path / "model.safetensors", {"a": torch.ones(2)}, {"kept": True})
    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(OSError, match=r"model\.safetensors' cannot be written.*No space left.*free some space"):
        write_tensors(tmp_path / "model.safetensors", {"a": torch.zeros(2)}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert read_header(tmp_path / "model.safetensors") == {"kept": True}


def test_what_a_kill_left_beside_a_file_goes_with_the_next_write(tmp_path: Path) -> None:
    (tmp_path / ".card.json.99999999.part").write_text("half")
    (tmp_path / f".card.json.{1}.part").write_text("of a process that lives")
    write_text(tmp_path / "card.json", "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".card.json.1.part", "card.json"]


def test_no_room_for_the_teachers_features(
    images: kd.data.ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, start: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "MEMORY_LIMIT", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(OSError, match=r"no room for .* GB of teacher features.*fit\(cache=False\)"):
        tiny.fit(tiny.build("stpm"), images, cache=True)
    assert not list(tmp_path.glob("kdlib-teacher-*"))


def test_the_state_stays_small_however_long_the_history(images: kd.data.ImageSet, tmp_path: Path) -> None:
    tiny.fit(tiny.build("stpm", steps=10), images, state=tmp_path, save_every=0)
    header = read_header(tmp_path / "phase_0.safetensors")
    assert header["rows"] == 10 and "history" not in header and len(json.dumps(header)) < 4000
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 10


def test_steps_after_the_last_save_are_forgotten(images: kd.data.ImageSet, tmp_path: Path) -> None:
    expected = tiny.fit(tiny.build("stpm", steps=6), images).rows
    with pytest.raises(tiny.KilledError):
        tiny.fit(tiny.build("stpm", steps=6), images, state=tmp_path, save_every=0, on_step=tiny.killer(4))
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"phase": "stpm", "step": 3, "total": 7.0}\n{"phase": "st')
    assert tiny.fit(tiny.build("stpm", steps=6), images, state=tmp_path).rows == expected
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize("damage", ["gone", "half", "short"])
def test_a_damaged_history_is_named(damage: str, killed: Path, images: kd.data.ImageSet) -> None:
    history = killed / "history.jsonl"
    text = history.read_text()
    history.write_text({"gone": "", "half": text[:-30] + "\n", "short": text.splitlines()[0] + "\n"}[damage])
    if damage == "gone":
        history.unlink()
    with pytest.raises(ValueError, match=r"history\.jsonl'.*delete the folder"):
        tiny.fit(tiny.build("stpm"), images, state=killed)


def test_a_damaged_header_is_named(killed: Path, images: kd.data.ImageSet) -> None:
    path, model = killed / "running.safetensors", tiny.build("stpm")
    tensors, meta = files.read_tensors(path)
    changes: list[dict[str, Any]] = [{"step": None}, {"step": 10**9}, {"phase": "x"}, {"sha256": None}, {"key": {}}]
    for header in (*changes, *(meta | changed for changed in changes)):
        write_tensors(path, tensors, header)
        with pytest.raises(ValueError, match=r"running\.safetensors' is no training state, or it is damaged"):
            tiny.fit(model, images, state=killed)


def test_other_start_weights_are_another_run(killed: Path, images: kd.data.ImageSet) -> None:
    with pytest.raises(ValueError, match=r"another run: it has .*'start_weights'"):
        tiny.fit(tiny.build("stpm", seed=1), images, state=killed)


def test_an_interrupted_model_goes_on(images: kd.data.ImageSet, tmp_path: Path) -> None:
    whole, model = tiny.build("stpm"), tiny.build("stpm")
    tiny.fit(whole, images)
    for at in (2, 3):
        with pytest.raises(tiny.KilledError):
            tiny.fit(model, images, state=tmp_path, save_every=0, on_step=tiny.killer(at))
    for _ in range(2):
        tiny.fit(model, images, state=tmp_path)
        assert tiny.equal(model, whole)


def test_another_teacher_is_another_run(images: kd.data.ImageSet, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"

    def build(scale: float) -> kd.contract.Distiller:
        net = kd.teachers.classifier("resnet18", "random")
        from safetensors.torch import save_file

        save_file({name: scale * tensor for name, tensor in net.state_dict().items()}, weights)
        return tiny.build("stpm", backbone="resnet18", weights=str(weights))

    with pytest.raises(tiny.KilledError):
        tiny.fit(build(1.0), images, state=tmp_path / "run", save_every=0, on_step=tiny.killer(2))
    with pytest.raises(ValueError, match=r"another run: it has .*'teacher'"):
        tiny.fit(build(2.0), images, state=tmp_path / "run")


def test_other_images_of_the_same_names_are_another_run(tmp_path: Path) -> None:
    first, second = (tiny.normal(tmp_path / name, 7) for name in ("first", "second"))
    second.samples[3].path.write_bytes(second.samples[4].path.read_bytes())
    tiny.fit(tiny.build("stpm"), first, state=tmp_path / "run")
    with pytest.raises(ValueError, match=r"another run: it has .*'files'"):
        tiny.fit(tiny.build("stpm"), second, state=tmp_path / "run")


def test_a_folder_serves_one_run_at_a_time(images: kd.data.ImageSet, tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(ValueError, match="another process is at work in"):
        tiny.fit(tiny.build("stpm"), images, state=tmp_path)
    tiny.fit(tiny.build("stpm"), images, state=tmp_path)


def test_two_trainings_in_two_threads_end_as_alone(images: kd.data.ImageSet) -> None:
    expected = [tiny.fit(tiny.build("dhkd", steps=3), images, seed=seed).rows for seed in (1, 2)]
    rows: dict[int, Any] = {}

    def train(seed: int) -> None:
        rows[seed] = tiny.fit(tiny.build("dhkd", steps=3), images, seed=seed).rows

    threads = [threading.Thread(target=train, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [rows[1], rows[2]] == expected


def test_seeding_gives_the_generator_back() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(3), expected)
    with seeded(1):
        assert torch.equal(torch.rand(2), inside)


def test_a_plan_is_made_step_by_step() -> None:
    asked: list[int] = []

    def choose(step: int) -> list[int]:
        asked.append(step)
        return [step]

    first = next(loader.plan(range(5, 10**9), choose))
    assert first == [(5, 5)] and asked == [5]


def test_images_are_read_once_up_to_a_limit(images: kd.data.ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    plain = records.open_image
    monkeypatch.setattr(records, "open_image", lambda path, *rest: opened.append(path) or plain(path, *rest))
    monkeypatch.setattr(loader, "MEMORY_LIMIT", 3 * (3 * 64 * 64))
    source = loader.TrainingImages(torch.nn.Identity(), images, 4, CPU, cache=False)
    first, again = list(source), list(source)
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, again, strict=True))
    counts = sorted(opened.count(path) for path in set(opened))
    assert counts[0] == 1 and counts[-1] == 2, "some are kept, the others are read again"


def test_the_first_batches_of_a_method_are_those_of_training(images: kd.data.ImageSet) -> None:
    model = tiny.build("dhkd")
    source = loader.TrainingImages(model.teacher, images, 4, CPU, cache=False)
    names = [(phase.name, len(batch.image)) for phase, batch in loader.first_batches(model, source)]
    assert names == [("flow teacher", 4), ("student", 4)]


def test_tensors_that_are_not_those_that_were_saved_are_refused(images: kd.data.ImageSet, tmp_path: Path) -> None:
    model = tiny.build("rd")
    with pytest.raises(tiny.KilledError):
        tiny.fit(model, images, state=tmp_path, save_every=0, on_step=tiny.killer(2))
    path = tmp_path / "running.safetensors"
    tensors, meta = files.read_tensors(path)
    moments = next(name for name in tensors if name.startswith("state."))
    for damaged in ({n: t for n, t in tensors.items() if n != moments}, tensors | {moments: tensors[moments] + 1}):
        write_tensors(path, damaged, meta)
        with pytest.raises(ValueError, match=r"running\.safetensors' is no training state, or it is damaged"):
            tiny.fit(model, images, state=tmp_path)


def test_files_have_the_rights_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_tensors(tmp_path / "model.safetensors", {"a": torch.ones(2)}, {})
    write_text(tmp_path / "card.json", "{}")
    rights = {(tmp_path / name).stat().st_mode for name in ("plain", "model.safetensors", "card.json")}
    assert len(rights) == 1


def test_what_is_no_image_set_or_no_folder_is_named(images: kd.data.ImageSet, tmp_path: Path) -> None:
    data = tiny.data(tmp_path / "data")
    with pytest.raises(ValueError, match=r"images is a Splits; expected an image set, such as data\.train"):
        tiny.fit(tiny.build("stpm"), data)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(ValueError, match="file' is a file; expected a folder"):
            tiny.fit(tiny.build("stpm"), images, state=folder)
        with pytest.raises(ValueError, match="file' is a file; expected a folder"):
            write_text(folder / "card.json", "")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_not_every_generator_takes_are_refused(seed: int, images: kd.data.ImageSet) -> None:
    with pytest.raises(ValueError, match=r"seed is .*; expected a whole number from 0 to 4294967295"):
        tiny.fit(tiny.build("stpm"), images, seed=seed)


@pytest.mark.parametrize("name", ["a**[b].png", "n" * 255])
def test_any_name_of_a_file_can_be_written(name: str, tmp_path: Path) -> None:
    write_text(tmp_path / name, "once")
    write_text(tmp_path / name, "twice")
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "twice"


def test_a_file_may_begin_like_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~no user").touch()
    assert expanded("~no user") == Path("~no user") and expanded("~") == Path.home()
    with pytest.raises(ValueError, match="'~nobody else' begins with a home folder that nobody has here; write out"):
        expanded("~nobody else")
