"""Teachers: the right levels from any family, weights from where the resolver says, files refused in plain words."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from kdlib import teachers, weights
from kdlib.data import resize_image
from kdlib.teachers.weights import Weights

LITE = "tf_efficientnet_lite0"
LEVELS = {
    "resnet18": (64, 128, 256),
    "resnet34": (64, 128, 256),
    "resnet50": (256, 512, 1024),
    "wide_resnet50_2": (256, 512, 1024),
    "mobilenetv3_large_100": (24, 40, 112),
    "convnext_tiny": (96, 192, 384),
    "regnety_004": (48, 104, 208),
    "swin_tiny_patch4_window7_224": (96, 192, 384),
    LITE: (24, 40, 112),
}
SMALL = ("resnet18", "mobilenetv3_large_100", "swin_tiny_patch4_window7_224", LITE)


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_package_file", lambda name: None)
    monkeypatch.setattr(weights, "_cached_file", lambda name: None)
    monkeypatch.delenv("KDLIB_DOWNLOAD", raising=False)


@pytest.mark.parametrize("name", LEVELS)
def test_levels(name: str) -> None:
    with torch.device("meta"):
        pyramid = teachers.teacher(name, weights="random")
        features = pyramid(torch.empty(2, 3, 64, 96))
    assert pyramid.channels == LEVELS[name] and pyramid.strides == (4, 8, 16)
    assert [tuple(f.shape) for f in features] == [
        (2, c, 64 // s, 96 // s) for c, s in zip(LEVELS[name], (4, 8, 16), strict=True)
    ]


@pytest.mark.parametrize("name", SMALL)
def test_levels_are_chosen_by_stride_alone(name: str) -> None:
    x = torch.rand(1, 3, 64, 64)
    all_three, two = (teachers.teacher(name, strides, "random") for strides in ((4, 8, 16), (8, 16)))
    with torch.no_grad():
        for a, b in zip(all_three(x)[1:], two(x), strict=True):
            torch.testing.assert_close(a, b)


def test_features_are_channels_first_even_where_sizes_are_ambiguous() -> None:
    pyramid = teachers.teacher("swin_tiny_patch4_window7_224", (4,), "random")
    with torch.no_grad():
        (found,) = pyramid(torch.rand(1, 3, 384, 56))  # 96 rows and 96 channels
    assert found.shape == (1, 96, 96, 14)


def test_a_teacher_is_frozen_and_a_student_is_not() -> None:
    teacher = teachers.teacher("resnet18", weights="random").train()
    student = teachers.student_like(teacher)
    assert not any(m.training for m in teacher.modules()) and all(m.training for m in student.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    assert student.channels == teacher.channels and student.fingerprint() != teacher.fingerprint()
    assert not student.eval().training and not any(m.training for m in student.modules())


def test_random_weights_are_the_same_everywhere_and_leave_the_generator_alone() -> None:
    torch.manual_seed(1)
    first, drawn = teachers.teacher("resnet18", weights="random"), torch.rand(1)
    torch.manual_seed(2)
    second = teachers.teacher("resnet18", weights="random")
    assert first.fingerprint() == second.fingerprint()
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    torch.manual_seed(2)
    one = teachers.student_like(first).fingerprint()
    torch.manual_seed(3)
    assert teachers.student_like(first).fingerprint() != one


@pytest.mark.parametrize(
    ("photo", "classes"),
    [
        ("chelsea.png", {281, 282, 283, 284, 285}),  # cats
        ("coffee.png", {504, 967, 968}),  # coffee mug, espresso, cup
        ("rocket.jpg", {657, 744, 812}),  # missile, projectile, space shuttle
    ],
)
def test_the_default_weights_know_what_photographs_show(photo: str, classes: set[int]) -> None:
    skimage = pytest.importorskip("skimage")
    with Image.open(Path(skimage.__file__).parent / "data" / photo) as file:
        image = file.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    x = resize_image(image.crop((left, top, left + side, top + side)), (224, 224))[None] / 255
    teacher = teachers.teacher(LITE)
    with torch.no_grad():
        best = teachers.classifier(LITE)((x - teacher.mean) / teacher.std)[0].argmax()
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


def test_bare_names_mean_the_papers_weights() -> None:
    assert teachers.full_name("resnet18") == "resnet18.tv_in1k"
    assert teachers.full_name("wide_resnet50_2") == "wide_resnet50_2.tv_in1k"
    assert teachers.full_name("resnet18.a1_in1k") == "resnet18.a1_in1k"
    assert teachers.full_name(LITE).startswith(f"{LITE}.")


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


def test_a_random_teacher_never_comes_unsaid(nothing_installed: None, recwarn: pytest.WarningsRecorder) -> None:
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


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_files(name: str, suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(7)
    whole = timm.create_model(name)
    file = tmp_path / f"w{suffix}"
    state = {k: v for k, v in whole.state_dict().items() if not k.endswith("num_batches_tracked")}
    if suffix == ".pth":
        torch.save(state, file)
    else:
        save_file(state, file)
    teacher = teachers.teacher(name, weights=file)
    assert teacher.weights == Weights(kind="file", tag=file.name, path=file)
    by_flat_name = {k.replace(".", "_"): v for k, v in whole.state_dict().items()}
    for key, value in teacher.net.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, by_flat_name[key.replace(".", "_")]), key


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
        with pytest.raises(ValueError, match=rf"{name}' cannot be read as weights"):
            teachers.teacher("resnet18", weights=tmp_path / name)
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


def test_unknown_names_and_levels() -> None:
    with pytest.raises(ValueError, match=r"unknown network 'resnet19'.*for example.*resnet18"):
        teachers.teacher("resnet19")
    with pytest.raises(ValueError, match=r"unknown weights 'resnet18\.magic'.*resnet18\.tv_in1k"):
        teachers.teacher("resnet18.magic")
    with pytest.raises(ValueError, match=r"no level at stride \[3\]; it has \[2, 4, 8, 16, 32\]"):
        teachers.teacher("resnet18", strides=(3, 8), weights="random")
    with pytest.raises(ValueError, match=r"no level at stride \[4, 8\]"):
        teachers.teacher("vit_tiny_patch16_224", weights="random")


def test_images_are_normalised_inside() -> None:
    pyramid = teachers.teacher("resnet18", weights="random")
    np.testing.assert_allclose(pyramid.mean.flatten(), (0.485, 0.456, 0.406))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(pyramid(x)[0], pyramid.net((x - pyramid.mean) / pyramid.std)[0])


def test_features_of_a_neighbourhood_are_means() -> None:
    plain, smooth = (teachers.teacher(LITE, (8,), neighbourhood=n) for n in (1, 3))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        (alone,), (averaged,) = plain(x), smooth(x)
    torch.testing.assert_close(averaged[..., 4, 5], alone[..., 3:6, 4:7].mean((2, 3)))
    torch.testing.assert_close(averaged[..., 0, 0], alone[..., :2, :2].mean((2, 3)))
    with pytest.raises(ValueError, match="neighbourhood is 2; expected an odd number"):
        teachers.teacher(LITE, neighbourhood=2)
