"""The rendered set: the same pixels for a seed, true masks, a layout that loaders know, safe interruption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from kdlib import datasets
from kdlib.course import rendered as workshop
from kdlib.course.rendered import PAPERS, PRODUCTS, Counts, picture, render
from kdlib.course.rendered.scene import VISIBLE, Shot, changed

FEW = Counts(train=2, test=1, per_defect=1)


def folders(root: Path) -> dict[str, int]:
    """Number of PNG files in every folder below `root`."""
    names = {path.parent.relative_to(root).as_posix() for path in root.rglob("*.png")}
    return {name: len(list((root / name).glob("*.png"))) for name in sorted(names)}


ALL = PRODUCTS | PAPERS


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
    assert render(tmp_path, categories=["fabric"], progress=False, counts=FEW) == tmp_path
    wanted = {"train/good": 2, "test/good": 1}
    for defect in PRODUCTS["fabric"].defects:
        wanted |= {f"test/{defect}": 1, f"ground_truth/{defect}": 1}
    assert folders(tmp_path / "fabric") == wanted
    mask = Image.open(tmp_path / "fabric" / "ground_truth" / "hole" / "000_mask.png")
    assert mask.mode == "L" and mask.size == (256, 256) and set(np.unique(np.asarray(mask))) == {0, 255}
    stored = np.asarray(Image.open(tmp_path / "fabric" / "train" / "good" / "001.png"))
    np.testing.assert_array_equal(stored, picture("fabric", index=1).image)


def test_sets_that_load_can_ask_for(tmp_path: Path) -> None:
    assert tuple(workshop.SETS) == datasets.RENDERED
    with pytest.raises(ValueError, match="unknown set 'mine'; known are workshop, mill"):
        render(tmp_path, of="mine")
    with pytest.raises(ValueError, match="unknown mill category 'capsule'; known are board, kraft, rose"):
        render(tmp_path, of="mill", categories=["capsule"])


def test_full_set_has_the_promised_size() -> None:
    for name, product in ALL.items():
        jobs = list(workshop._jobs(name, workshop.FULL))
        normal = [split for split, defect, _ in jobs if defect is None]
        assert (normal.count("train"), normal.count("test"), len(jobs) - len(normal)) == (60, 20, 24)
        assert len(product.defects) == 4


def test_interrupted_rendering_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(folder: Path, job: tuple[str, str | None, int], shot: Shot) -> None:
        if job[0] == "test":
            raise KeyboardInterrupt
        write(folder, job, shot)

    write = workshop._write
    monkeypatch.setattr(workshop, "_write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        render(tmp_path, categories=["brushed_metal"], progress=False, counts=FEW)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(workshop, "_write", write)
    render(tmp_path, categories=["brushed_metal"], progress=False, counts=FEW)
    assert sum(folders(tmp_path / "brushed_metal").values()) == 2 + 1 + 4 + 4


def test_second_call_renders_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render(tmp_path, categories=["brushed_metal"], progress=False, counts=FEW)
    done: list[str] = []
    monkeypatch.setattr(workshop, "_render_category", lambda root, name, *rest: done.append(name))
    render(tmp_path, categories=["brushed_metal", "fabric"], progress=False, counts=FEW)
    assert done == ["fabric"]


def test_another_seed_or_a_foreign_folder_is_refused_and_an_old_version_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(tmp_path, categories=["brushed_metal"], progress=False, counts=FEW)
    with pytest.raises(ValueError, match="delete it or choose another root"):
        render(tmp_path, categories=["brushed_metal"], seed=1, progress=False, counts=FEW)
    monkeypatch.setattr(workshop, "VERSION", workshop.VERSION + 1)
    render(tmp_path, categories=["brushed_metal"], seed=1, progress=False, counts=FEW)
    (tmp_path / "fabric").mkdir()
    with pytest.raises(FileExistsError, match=r"manifest\.json"):
        render(tmp_path, categories=["fabric"], progress=False, counts=FEW)


def test_unknown_category_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"brushed_metal.*tiles"):
        render(tmp_path, categories=["teapot"], progress=False)
