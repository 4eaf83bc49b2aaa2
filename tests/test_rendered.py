"""The rendered set: the same pixels for a seed, true masks, a layout that loaders know, safe interruption."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from scipy import ndimage

import kdlib as kd
from kdlib.course import rendered
from kdlib.course.rendered import PAPERS, PRODUCTS, picture, render, store
from kdlib.course.rendered.scene import VISIBLE, Shot, changed
from kdlib.course.rendered.store import Counts, Place
from kdlib.data.generated import names

FEW = Counts(train=2, test=1, per_defect=1)
ALL = PRODUCTS | PAPERS


def render_few(root: Path, *names: str, seed: int = 0) -> Path:
    """Renders a few pictures of each named product of the workshop."""
    return render(root, categories=names or ["brushed_metal"], seed=seed, progress=False, counts=FEW)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny pictures of noise instead of painted ones, for tests of what lies on disk."""

    def noise(name: str, *, seed: int, split: str, defect: str | None, index: int, of: int) -> Shot:
        key = [seed, *f"{name}/{defect or split}/{index}".encode()]
        image = np.random.default_rng(key).integers(0, 256, (8, 8, 3), np.uint8)
        return Shot(image, image, image[..., 0] > 127 if defect else None)

    monkeypatch.setattr(rendered, "picture", noise)


def folders(root: Path) -> dict[str, int]:
    """Number of PNG files in every folder below `root`."""
    names = {path.parent.relative_to(root).as_posix() for path in root.rglob("*.png")}
    return {name: len(list((root / name).glob("*.png"))) for name in sorted(names)}


@pytest.mark.parametrize("name", ALL)
def test_same_seed_same_pixels_other_seed_other_pixels(name: str) -> None:
    first = picture(name, seed=3, index=1)
    np.testing.assert_array_equal(picture(name, seed=3, index=1).image, first.image)
    assert first.image.shape == (256, 256, 3) and first.image.dtype == np.uint8
    assert (picture(name, seed=4, index=1).image != first.image).any()


@pytest.mark.parametrize(("name", "defect"), [(name, defect) for name in ALL for defect in ALL[name].defects])
def test_mask_covers_all_and_only_what_the_defect_changed(name: str, defect: str) -> None:
    shot = picture(name, defect=defect, index=5)
    assert shot.mask is not None and shot.mask.any()
    difference = np.abs(shot.image.astype(int) - shot.twin).max(-1)
    outside = difference[~ndimage.binary_dilation(shot.mask, iterations=2)]
    assert np.mean(outside > 255 * VISIBLE + 2) < 5e-4, "the defect shows outside its mask"
    assert np.mean(difference[shot.mask] > 255 * VISIBLE - 2) > 0.4, "the mask covers much that did not change"


def test_mask_is_the_changed_region_without_specks() -> None:
    before = np.full((64, 64, 3), 0.5)
    after = before.copy()
    after[20:30, 20:30] += 0.2
    after[50, 50] += 0.2
    wanted = np.zeros((64, 64), bool)
    wanted[20:30, 20:30] = True
    np.testing.assert_array_equal(changed(before, after), wanted)
    assert not changed(before, before).any()


def test_layout_counts_and_masks(tmp_path: Path) -> None:
    assert render_few(tmp_path, "fabric") == tmp_path
    wanted = {"train/good": 2, "test/good": 1}
    for defect in PRODUCTS["fabric"].defects:
        wanted |= {f"test/{defect}": 1, f"ground_truth/{defect}": 1}
    assert folders(tmp_path / "fabric") == wanted
    mask = Image.open(tmp_path / "fabric" / "ground_truth" / "hole" / "000_mask.png")
    assert mask.mode == "L" and mask.size == (256, 256) and set(np.unique(np.asarray(mask))) == {0, 255}
    stored = np.asarray(Image.open(tmp_path / "fabric" / "train" / "good" / "001.png"))
    np.testing.assert_array_equal(stored, picture("fabric", index=1).image)


def test_sets_that_load_can_ask_for(tmp_path: Path) -> None:
    assert names() == sorted([*rendered.SETS, *(f"{name}_report" for name in rendered.SETS)])
    with pytest.raises(ValueError, match="unknown set 'mine'; known are workshop, mill"):
        render(tmp_path, of="mine")
    with pytest.raises(ValueError, match="unknown mill category 'capsule'; known are board, kraft, rose"):
        render(tmp_path, of="mill", categories=["capsule"])


def test_full_set_has_the_promised_size() -> None:
    for product in ALL.values():
        for world, counts in ((rendered.TUNING, (60, 20, 24)), (rendered.REPORT, (60, 60, 96))):
            places = store.places(product.defects, world.counts)
            normal = [place.split for place in places if place.defect is None]
            assert (normal.count("train"), normal.count("test"), len(places) - len(normal)) == counts
        assert len(product.defects) == 4


def test_reports_have_the_same_training_pictures_and_fresh_tests(tmp_path: Path) -> None:
    few = Counts(train=1, test=1, per_defect=1)
    tuning, report = (
        render(tmp_path / str(seed), categories=["fabric"], test_seed=seed, progress=False, counts=few)
        for seed in (None, 1)
    )
    for folder, same in (("train/good", True), ("test/good", False), ("test/hole", False)):
        pictures = [(root / "fabric" / folder / "000.png").read_bytes() for root in (tuning, report)]
        assert (pictures[0] == pictures[1]) == same
    with pytest.raises(ValueError, match=r"was rendered with .*'seed': \[0, 1\]"):
        render(report, categories=["fabric"], progress=False, counts=few)


def interrupt(monkeypatch: pytest.MonkeyPatch, stop: Callable[[], None]) -> None:
    """From now on `stop` is called instead of writing the first test picture."""
    write = Place.write

    def write_or_stop(place: Place, folder: Path, shot: Shot) -> None:
        if place.split == "test":
            stop()
        write(place, folder, shot)

    monkeypatch.setattr(Place, "write", write_or_stop)


def visible(root: Path) -> list[str]:
    """Names below `root`, the lock left aside."""
    return sorted(path.name for path in root.iterdir() if path.name != ".rendering.lock")


@pytest.mark.usefixtures("quick")
def test_interrupted_rendering_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        interrupt(patch, stop)
        with pytest.raises(KeyboardInterrupt):
            render_few(tmp_path)
    assert visible(tmp_path) == []
    render_few(tmp_path)
    assert sum(folders(tmp_path / "brushed_metal").values()) == 2 + 1 + 4 + 4


@pytest.mark.usefixtures("quick")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that can be killed in the middle")
def test_what_a_kill_leaves_is_removed_at_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render_few(tmp_path, "fabric")
    with monkeypatch.context() as patch:
        interrupt(patch, lambda: os.kill(os.getpid(), signal.SIGKILL))
        process = get_context("fork").Process(target=render_few, args=(tmp_path,))
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert visible(tmp_path) == [".rendering-brushed_metal", "fabric"]
    (tmp_path / ".rendering-x1y2z3").mkdir()  # as kdlib 0.1 named them
    render_few(tmp_path, "fabric")  # nothing to render
    assert visible(tmp_path) == ["fabric"]


@pytest.mark.usefixtures("quick")
def test_what_a_living_process_renders_stays(tmp_path: Path) -> None:
    render_few(tmp_path)
    (tmp_path / ".rendering-fabric").mkdir()
    with FileLock(tmp_path / ".rendering.lock"):
        render_few(tmp_path)
    assert visible(tmp_path) == [".rendering-fabric", "brushed_metal"]


@pytest.mark.usefixtures("quick")
def test_whoever_waited_for_another_process_renders_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Busy(FileLock):  # type: ignore[misc, unused-ignore]
        """Held by a process that renders the category and lets the lock go."""

        def acquire(self, timeout: float | None = None, **options: object) -> object:
            if timeout == 0:
                raise store.Timeout(self.lock_file)
            shutil.copytree(ready / "brushed_metal", tmp_path / "brushed_metal")
            return super().acquire()

    ready = render_few(tmp_path / "ready")
    monkeypatch.setattr(store, "FileLock", Busy)
    monkeypatch.setattr(rendered, "_render_category", lambda *_: pytest.fail("rendered twice"))
    render_few(tmp_path)
    assert "another process is rendering" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_second_call_renders_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render_few(tmp_path)
    done: list[str] = []
    monkeypatch.setattr(rendered, "_render_category", lambda root, name, *rest: done.append(name))
    render_few(tmp_path, "brushed_metal", "fabric")
    assert done == ["fabric"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["train/good/001.png", "ground_truth/dent/000_mask.png"])
@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["deleted", "empty"])
def test_pictures_that_are_gone_are_rendered_again(tmp_path: Path, name: str, spoil: Callable[[Path], None]) -> None:
    render_few(tmp_path)
    lost = tmp_path / "brushed_metal" / name
    before = lost.read_bytes()
    spoil(lost)
    render_few(tmp_path)
    assert lost.read_bytes() == before
    assert visible(tmp_path) == ["brushed_metal"]


@pytest.mark.usefixtures("quick")
def test_worlds_of_other_seeds_and_counts_live_beside(tmp_path: Path) -> None:
    first, second = render_few(tmp_path / "workshop"), render_few(tmp_path / "world_1", seed=1)
    a, b = (np.asarray(Image.open(root / "brushed_metal" / "train" / "good" / "000.png")) for root in (first, second))
    assert (a != b).any()
    with pytest.raises(ValueError, match="delete it or choose another root"):
        render_few(first, seed=1)
    with pytest.raises(ValueError, match="delete it or choose another root"):
        render(first, categories=["brushed_metal"], progress=False, counts=Counts(train=3, test=1, per_defect=1))
    data = kd.data.load(second, size=32)
    assert data.categories == ("brushed_metal",) and len(data.test) == 5 and data.licence == ""


@pytest.mark.usefixtures("quick")
def test_pictures_of_an_older_version_are_rendered_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render_few(tmp_path)
    monkeypatch.setattr(store, "VERSION", store.VERSION + 1)
    render_few(tmp_path, seed=1)
    assert json.loads((tmp_path / "brushed_metal" / "manifest.json").read_text())["seed"] == 1


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fabric").mkdir()
    with pytest.raises(FileExistsError, match=r"has no manifest\.json: kdlib did not write it"):
        render_few(tmp_path, "fabric")
    for text in ("[1, 2]", "null", '{"name": "another program"}', '{"version": 1, "seed": 0}'):
        (tmp_path / "fabric" / "manifest.json").write_text(text)
        with pytest.raises(FileExistsError, match="expected version, seed and counts"):
            render_few(tmp_path, "fabric")
    assert visible(tmp_path) == ["fabric"]


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "fabric").mkdir()
    for data in (b"", b'{"version": 1, "se', b"\xff\xfe\x00"):
        (tmp_path / "fabric" / "manifest.json").write_bytes(data)
        with pytest.raises(ValueError, match=r"manifest\.json is damaged .* to have it rendered again"):
            render_few(tmp_path, "fabric")


def test_unknown_category_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"brushed_metal.*tiles"):
        render(tmp_path, categories=["teapot"], progress=False)
