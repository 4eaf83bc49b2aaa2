"""Small data sets on disk, one builder for each layout, for the tests of kdlib.data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

VISA_HEADER = "object,split,label,image,mask"


def picture(path: Path, size: tuple[int, int] = (12, 10), seed: int = 0) -> Path:
    """Write a random RGB picture of `size` = (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pictures(folder: Path, count: int, suffix: str = ".png") -> None:
    for number in range(count):
        picture(folder / f"{number:03d}{suffix}", seed=number)


def mask(path: Path, size: tuple[int, int] = (12, 10), value: int = 255) -> Path:
    """Write a mask whose left half is a defect."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), dtype=np.uint8)
    pixels[:, : size[0] // 2] = value
    Image.fromarray(pixels).save(path)
    return path


def masks(folder: Path, count: int, ending: str = "_mask.png") -> None:
    for number in range(count):
        mask(folder / f"{number:03d}{ending}")


def mvtec(root: Path, category: str = "bottle", train: int = 10, truth: bool = True) -> Path:
    folder = root / category
    pictures(folder / "train" / "good", train)
    pictures(folder / "test" / "good", 2)
    pictures(folder / "test" / "broken", 3)
    pictures(folder / "test" / "crack", 1)
    if truth:
        masks(folder / "ground_truth" / "broken", 3)
        masks(folder / "ground_truth" / "crack", 1)
    for name in ("license.txt", "readme.txt"):
        (folder / name).write_text("terms")
        (root / name).write_text("terms")
    return root


def loco(root: Path, category: str = "pushpins") -> Path:
    folder = root / category
    pictures(folder / "train" / "good", 5)
    pictures(folder / "validation" / "good", 2)
    pictures(folder / "test" / "good", 2)
    for kind in ("logical_anomalies", "structural_anomalies"):
        pictures(folder / "test" / kind, 2)
        for number in range(2):
            masks(folder / "ground_truth" / kind / f"{number:03d}", number + 1, ".png")
    (folder / "defects_config.json").write_text('[{"defect_name": "x", "pixel_value": 255}]')
    return root


def ad2(root: Path, category: str = "vial") -> Path:
    folder = root / category
    pictures(folder / "train" / "good", 5)
    pictures(folder / "validation" / "good", 2)
    pictures(folder / "test_public" / "good", 2)
    pictures(folder / "test_public" / "bad", 3)
    masks(folder / "test_public" / "ground_truth" / "bad", 3)
    pictures(folder / "test_private", 2)
    pictures(folder / "test_private_mixed", 2)
    return root


def mvtec3d(root: Path, category: str = "bagel") -> Path:
    folder = root / category
    for split, kind, count in (
        ("train", "good", 5),
        ("validation", "good", 2),
        ("test", "good", 2),
        ("test", "hole", 3),
    ):
        pictures(folder / split / kind / "rgb", count)
        for number in range(count):
            scan = folder / split / kind / "xyz" / f"{number:03d}.tiff"
            scan.parent.mkdir(exist_ok=True)
            scan.write_bytes(b"a point cloud, not a picture")
        if split == "test":
            masks(folder / split / kind / "gt", count, ".png")
    return root


def bmad(root: Path, name: str, mask_folder: str | None) -> Path:
    inner = "img" if mask_folder else ""
    for split, kind, count in (
        ("train", "good", 5),
        ("valid", "good", 2),
        ("valid", "Ungood", 2),
        ("test", "good", 2),
        ("test", "Ungood", 3),
    ):
        pictures(root / name / split / kind / inner, count)
        if mask_folder and split != "train":
            masks(root / name / split / kind / mask_folder, count, ".png")
    return root


def btad(root: Path) -> Path:
    for name, image, truth in (("01", ".bmp", ".png"), ("02", ".png", ".png"), ("03", ".bmp", ".bmp")):
        folder = root / "BTech_Dataset_transformed" / name
        pictures(folder / "train" / "ok", 5, image)
        pictures(folder / "test" / "ok", 2, image)
        pictures(folder / "test" / "ko", 3, image)
        masks(folder / "ground_truth" / "ko", 3, truth)
    return root


def visa_raw(root: Path, category: str = "candle") -> Path:
    base = root / category / "Data"
    pictures(base / "Images" / "Normal", 8, ".JPG")
    pictures(base / "Images" / "Anomaly", 3, ".JPG")
    lines = [VISA_HEADER]
    for number in reversed(range(8)):
        split = "train" if number < 6 else "test"
        lines.append(f"{category},{split},normal,{category}/Data/Images/Normal/{number:03d}.JPG,")
    for number in range(3):
        mask(base / "Masks" / "Anomaly" / f"{number:03d}.png", value=number + 1)
        where = f"{category}/Data/Images/Anomaly/{number:03d}.JPG,{category}/Data/Masks/Anomaly/{number:03d}.png"
        lines.append(f"{category},test,anomaly,{where}")
    (root / category / "image_anno.csv").write_text("image,label,mask\n")
    (root / "split_csv").mkdir(exist_ok=True)
    (root / "split_csv" / "1cls.csv").write_text("\n".join(lines) + "\n")
    return root


def visa_reorganised(root: Path, category: str = "pcb1") -> Path:
    folder = root / "1cls" / category
    pictures(folder / "train" / "good", 6, ".JPG")
    pictures(folder / "test" / "good", 2, ".JPG")
    pictures(folder / "test" / "bad", 3, ".JPG")
    masks(folder / "ground_truth" / "bad", 3, ".png")
    return root


def visa_meta(root: Path, category: str = "cashew", **changes: object) -> Path:
    pictures(root / category / "n", 8)
    pictures(root / category / "a", 3)
    masks(root / category / "m", 3, ".png")

    def item(kind: str, number: int) -> dict[str, object]:
        mask_path = f"{category}/m/{number:03d}.png" if kind == "a" else ""
        path = f"{category}/{kind}/{number:03d}.png"
        anomaly = int(kind == "a")
        return dict(img_path=path, mask_path=mask_path, cls_name=category, specie_name="", anomaly=anomaly)

    train = [item("n", number) for number in range(6)]
    test = [item("n", number) for number in (6, 7)] + [item("a", number) for number in range(3)]
    test[-1].update(changes)
    (root / "meta.json").write_text(json.dumps({"train": {category: train}, "test": {category: test}}))
    return root
