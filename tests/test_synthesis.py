"""Synthetic defects: masks of Perlin noise, the product in an image, textures and their changes."""

from __future__ import annotations

import pickle
from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

from kdlib.synthesis.colours import CHANGES, changed
from kdlib.synthesis.defects import Defects
from kdlib.synthesis.foreground import foreground
from kdlib.synthesis.perlin import perlin, perlin_mask
from kdlib.synthesis.shifts import Corrupted, Shifts, corrupt, turned
from kdlib.synthesis.textures import Folder, Rendered, textures


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slowly(cells: int, pixels: int, angles: Tensor) -> Tensor:
    """Perlin noise of one row of the lattice's formula, pixel by pixel."""
    noise = torch.zeros(pixels, pixels)
    for i in range(pixels):
        for j in range(pixels):
            y, x = i * cells / pixels, j * cells / pixels
            row, column, v, u = int(y), int(x), y % 1, x % 1
            for down in (0, 1):
                for aside in (0, 1):
                    angle = angles[row + down, column + aside]
                    product = angle.cos() * (v - down) + angle.sin() * (u - aside)
                    weight = fade(v if down else 1 - v) * fade(u if aside else 1 - u)
                    noise[i, j] += 2**0.5 * weight * product
    return noise


def fade(t: float) -> float:
    return 6 * t**5 - 15 * t**4 + 10 * t**3


def test_perlin_noise_is_that_of_the_formula() -> None:
    angles = 2 * torch.pi * torch.rand(4, 4, generator=seeded(3))
    torch.testing.assert_close(perlin((10, 10), (3, 3), seeded(3)), slowly(3, 10, angles), rtol=1e-4, atol=1e-5)
    assert perlin((24, 40), (4, 8), seeded()).shape == (24, 40)
    assert perlin((32, 32), (4, 4), seeded())[::8, ::8].abs().max() < 1e-6, "0 at the corners of the lattice"


def test_masks_cover_a_twentieth_and_one_of_twenty_is_empty() -> None:
    generator = seeded()
    areas = torch.stack([perlin_mask((64, 64), generator).float().mean() for _ in range(400)])
    assert 0.03 < areas.mean() < 0.07 and 0.02 < (areas == 0).float().mean() < 0.1


def picture(*, framed: bool) -> Tensor:
    """A bright square on a background of uneven light, or a texture."""
    light = torch.linspace(0.2, 0.4, 96).expand(3, 96, 96).clone()
    if framed:
        light[0, 24:72, 30:66] = 0.9
        return light + 0.01 * torch.randn(3, 96, 96, generator=seeded())
    return torch.rand(3, 96, 96, generator=seeded())


def test_the_product_stands_inside_a_frame() -> None:
    found = foreground(picture(framed=True))
    true = torch.zeros(1, 96, 96, dtype=torch.bool)
    true[:, 24:72, 30:66] = True
    assert found.shape == (1, 96, 96) and found.dtype == torch.bool
    assert (found & true).sum() > 0.95 * true.sum() and found.sum() < 1.2 * true.sum()
    hollow = picture(framed=True)
    hollow[:, 40:56, 40:56] = hollow[:, :16, 40:56]
    assert foreground(hollow)[0, 40:56, 40:56].all(), "what a product encloses belongs to it"


def test_a_texture_is_product_everywhere() -> None:
    assert foreground(picture(framed=False)).all()
    assert foreground(torch.full((3, 40, 64), 0.5)).all()


def test_defects_stand_under_their_mask_and_on_the_product() -> None:
    image, view = picture(framed=True).clamp(0, 1), Defects(clean=0.0)
    areas = []
    for seed in range(10):
        made = view(image, seeded(seed))
        differs = (made["defective"] != image).any(0, keepdim=True)
        assert not (differs & ~made["mask"]).any() and not (made["mask"] & ~made["foreground"]).any()
        assert made["defective"].min() >= 0 and made["defective"].max() <= 1
        areas.append(int(made["mask"].sum()))
    assert min(areas) > 4
    anywhere = Defects(clean=0.0, on_foreground=False)(image, seeded(2))
    assert anywhere["foreground"].all()


def test_some_images_stay_clean_and_a_seed_decides() -> None:
    image, view = picture(framed=False), Defects(clean=0.5)
    made = [view(image, seeded(seed)) for seed in range(40)]
    clean = [each for each in made if not each["mask"].any()]
    assert 10 < len(clean) < 30 and all(torch.equal(each["defective"], image) for each in clean)
    again = view(image, seeded(3))
    assert all(torch.equal(again[name], tensor) for name, tensor in made[3].items())
    assert pickle.loads(pickle.dumps(view)) == view, "workers that read images get it by pickle"


def test_faint_defects_are_blended() -> None:
    """`x' = (1 - b) texture + b x` with one b per image: all defect pixels lie on lines to one texture."""

    class Grey:
        def __call__(self, size: tuple[int, int], generator: torch.Generator) -> Tensor:
            return torch.zeros(3, *size)

    image = torch.full((3, 64, 64), 0.5)
    view = Defects(textures=Grey(), clean=0.0)
    shown = {round(float(view(image, seeded(s))["defective"].min()), 3) for s in range(12)}
    assert len(shown) > 3 and max(shown) <= 1


def test_every_texture_and_every_change_is_an_image() -> None:
    generator, made = seeded(), []
    for _ in range(30):
        texture = Rendered()((24, 40), generator)
        assert texture.shape == (3, 24, 40) and texture.min() >= 0 and texture.max() <= 1
        made.append(texture)
    assert len({round(float(t.mean()), 4) for t in made}) > 20
    before = made[0].clone()
    for change in CHANGES:
        assert change(made[0], generator).shape == (3, 24, 40) and torch.equal(made[0], before)
    after = changed(made[0], generator)
    assert after.min() >= 0 and after.max() <= 1 and not torch.equal(after, before)


def test_textures_of_a_folder(tmp_path: Path) -> None:
    trees.pictures(tmp_path / "banded", 2)
    trees.pictures(tmp_path / "dotted", 1)
    source = textures(str(tmp_path))
    assert isinstance(source, Folder) and len(source.files) == 3 and isinstance(textures("rendered"), Rendered)
    texture = source((32, 48), seeded())
    assert texture.shape == (3, 32, 48) and np.isclose(texture.max(), 1, atol=1)
    for missing in (tmp_path / "nothing", tmp_path / "banded" / "empty"):
        with pytest.raises(ValueError, match=r"a folder without images or no folder; expected one with .* 'rendered'"):
            textures(str(missing))


def test_a_shifted_image_is_the_same_for_a_seed_and_another_otherwise() -> None:
    image = picture(framed=True).clamp(0, 1)
    made = [Shifts()(image, seeded(seed))["shifted"] for seed in range(8)]
    assert all(each.shape == image.shape and each.min() >= 0 and each.max() <= 1 for each in made)
    assert torch.equal(Shifts()(image, seeded(3))["shifted"], made[3]) and not torch.equal(made[2], made[3])
    assert turned(torch.rand(3, 32, 48), seeded()).shape == (3, 32, 48)
    assert pickle.loads(pickle.dumps(Shifts())) == Shifts()


def test_corruptions_grow_with_severity() -> None:
    image = picture(framed=True).clamp(0, 1)
    for kind in ("brightness", "contrast", "blur", "noise", "rotation"):
        changes = [float((corrupt(image, kind, s) - image).abs().mean()) for s in (1, 3, 5)]  # type: ignore[arg-type]
        assert changes == sorted(changes) and changes[0] > 0, kind
    torch.testing.assert_close(corrupt(torch.full((3, 8, 8), 0.5), "brightness", 3), torch.full((3, 8, 8), 0.8))
    with pytest.raises(ValueError, match="got 'snow' of severity 3; expected one of"):
        corrupt(image, "snow")  # type: ignore[arg-type]


def test_a_corrupted_set_turns_masks_with_its_images(tmp_path: Path) -> None:
    images = tiny.data(tmp_path).test
    noisy, turned_set = Corrupted(images, "noise"), Corrupted(images, "rotation", 5)
    assert len(noisy) == len(images) and (noisy.labels == images.labels).all()
    defects = [i for i, label in enumerate(images.labels) if label]
    for i in defects:
        assert torch.equal(noisy[i]["mask"], images[i]["mask"]) and not torch.equal(
            noisy[i]["image"], images[i]["image"]
        )
        assert not torch.equal(turned_set[i]["mask"], images[i]["mask"])
        assert torch.equal(noisy[i]["image"], noisy[i]["image"]), "the same noise whenever it is read"
    part = noisy.subset(defects[:1])
    assert isinstance(part, Corrupted) and torch.equal(part[0]["image"], noisy[defects[0]]["image"])
    assert len({images.fingerprint(), noisy.fingerprint(), turned_set.fingerprint()}) == 3
