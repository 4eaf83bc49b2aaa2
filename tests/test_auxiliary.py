"""Images of something else: rendered, cut out of photographs, or from a folder; the same every time."""

from __future__ import annotations

import sys
from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest
import tiny
import torch

from kdlib.data.auxiliary import load_auxiliary, photographs


def test_textures_are_the_same_every_time_and_all_different() -> None:
    first, again = (load_auxiliary("textures", (48, 64)) for _ in range(2))
    pictures = [first.pixels(i) for i in range(6)]
    assert all(torch.equal(again.pixels(i), picture) for i, picture in enumerate(pictures))
    assert all(picture.shape == (3, 48, 64) and picture.dtype == torch.uint8 for picture in pictures)
    assert len({picture.numpy().tobytes() for picture in pictures}) == 6
    assert all(picture.float().std() > 20 for picture in pictures)
    assert load_auxiliary("textures", (512, 512)).pixels(0).shape == (3, 512, 512)
    assert first.fingerprint() == again.fingerprint() != load_auxiliary("textures", (64, 64)).fingerprint()


def test_photographs_are_cut() -> None:
    pytest.importorskip("skimage")
    cuts = load_auxiliary("photographs", (32, 32))
    count = len(photographs())
    assert len(cuts) == 40 * count and not torch.equal(cuts.pixels(0), cuts.pixels(count))
    assert torch.equal(cuts.subset([count]).pixels(0), cuts.pixels(count))


def test_several_kinds_together(tmp_path: Path) -> None:
    trees.pictures(tmp_path / "own" / "good", 3)
    joined = load_auxiliary(f"textures + {tmp_path / 'own'}", (32, 32)).cached()
    own = load_auxiliary(tmp_path / "own", (32, 32))
    assert len(joined) == 256 + 3 and torch.equal(joined.pixels(256), own.pixels(0))
    assert joined.fingerprint() != own.fingerprint()
    assert np.isclose(float(joined[0]["image"].mean()), float(joined.pixels(0).float().mean() / 255), atol=1e-5)


def test_a_folder_for_each_kind(tmp_path: Path) -> None:
    for kind in ("banded", "dotted"):
        trees.pictures(tmp_path / "dtd" / "images" / kind, 2)
    assert len(load_auxiliary(tmp_path / "dtd", (32, 32))) == len(load_auxiliary(tmp_path / "dtd" / "images")) == 4


def test_what_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        load_auxiliary(tmp_path / "nowhere")
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setattr("kdlib.data.auxiliary.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"there are no photographs.*'textures'"):
        load_auxiliary("photographs")


def test_fit_renders_textures_where_none_are_given(tmp_path: Path) -> None:
    seen = []
    model = tiny.build("efficientad", weights="random")
    loss = model.loss
    model.loss = lambda batch: seen.append(batch.auxiliary) or loss(batch)  # type: ignore
    tiny.fit(model, tiny.normal(tmp_path))
    rendered = load_auxiliary("textures", (64, 64))
    shown = (255 * seen[0][0]).round().to(torch.uint8)
    assert any(torch.equal(shown, rendered.pixels(i)) for i in range(len(rendered)))
