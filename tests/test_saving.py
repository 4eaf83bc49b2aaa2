"""Saved detectors: what is saved is read back bit for bit, or refused clearly; nothing is trusted unasked."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import kdlib as kd
from kdlib.files import checksum, read_tensors, write_tensors
from kdlib.scoring import saving


@pytest.fixture
def saved(detector: kd.Detector, tmp_path: Path) -> Path:
    return kd.save(detector, tmp_path / "saved")


PIXELS = np.random.default_rng(3).integers(0, 256, (50, 70, 3), dtype=np.uint8)


def scored(detector: kd.Detector) -> list[float]:
    return kd.score(detector, PIXELS, device="cpu", precision="fp32").scores.tolist()


Change = Callable[[dict[str, Any], dict[str, torch.Tensor]], object]


def rewritten(saved: Path, change: Change, *, signed: bool = True) -> Path:
    """Changes card and tensors of a saved detector, as somebody would who knows the format."""
    tensors, meta = read_tensors(saved / "model.safetensors")
    card = meta["card"]
    change(card, tensors)
    if signed:
        card["sha256"] = checksum(card, tensors)
    write_tensors(saved / "model.safetensors", tensors, {"card": card})
    return saved


def test_the_card_is_complete(saved: Path, detector: kd.Detector) -> None:
    card = json.loads((saved / "card.json").read_text())
    assert card["method"] == "stpm" and card["size"] == [32, 64] and card["strides"] == [4, 8, 16]
    assert card["teacher"]["name"] == "resnet18.tv_in1k" and card["teacher"]["weights"] == "seed 1000003 (random)"
    assert {"python", "torch", "timm", "kdlib"} <= card["versions"].keys()
    assert card["config"].keys() == vars(detector.model.config).keys() and card["config"]["backbone"] == "resnet18"
    assert card["threshold"]["n"] == 2 and card["scale"]["high"] > card["scale"]["low"]
    assert card["precision"] == "fp32" and card["normal"] is None
    with safe_open(saved / "model.safetensors", "pt") as file:
        assert not [key for key in file.keys() if "teacher." in key]  # noqa: SIM118 - not a mapping


def test_loading_gives_the_same_scores(detector: kd.Detector, saved: Path) -> None:
    assert scored(kd.load(saved)) == scored(detector)


@pytest.mark.parametrize("name", ["mean", "nearest"])
@pytest.mark.parametrize("maps", ["plain", "normal"])
def test_baselines_and_normal_maps_are_saved_too(name: str, maps: Any, tmp_path: Path) -> None:
    images = tiny.data(tmp_path / "data", train=20, size=(32, 64), calib_share=0.3)
    model = kd.build(name, backbone="resnet18", weights="random")
    tiny.fit(model, images.train)
    detector = kd.calibrate(model, images.calib, maps=maps, device="cpu", precision="fp32")
    assert (detector.normal is not None) == (maps == "normal")
    assert scored(kd.load(kd.save(detector, tmp_path / "saved"))) == scored(detector)


def test_missing_damaged_and_foreign_files(saved: Path, tmp_path: Path) -> None:
    path = saved / "model.safetensors"
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"no detector in .*model\.safetensors' is missing"):
        kd.load(tmp_path)
    for damaged in (content[:-100], content[:50], b"", b"x" * 1000):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model\.safetensors' is damaged"):
            kd.load(saved)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="kdlib did not write"):
        kd.load(saved)
    for header in ("no json", "[]"):
        save_file({"a": torch.zeros(1)}, path, {"kdlib": header})
        with pytest.raises(ValueError, match="'kdlib' entry"):
            kd.load(saved)
    save_file({"a": torch.zeros(1)}, path, {"kdlib": "[" * 100_000})
    with pytest.raises(ValueError, match="damaged"):
        kd.load(saved)
    for card in ({"key": {}}, {"card": None}, {"card": [1]}):
        write_tensors(path, {}, card)
        with pytest.raises(ValueError, match="no detector: its header has no card"):
            kd.load(saved)


def test_a_damaged_detector_fails_or_gives_the_same_score(detector: kd.Detector, tmp_path: Path) -> None:
    saved = kd.save(detector, tmp_path)
    path = saved / "model.safetensors"
    whole, expected = path.read_bytes(), (scored(detector), detector.threshold)
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(whole[:8], "little")
    places = [*rng.integers(0, header, 130), *rng.integers(header, len(whole), 20)]
    refused = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged if rng.random() < 0.9 else damaged[:place])
        try:
            loaded = kd.load(saved)
        except ValueError as error:
            refused += 1
            assert str(error)
        else:
            assert (scored(loaded), loaded.threshold) == expected
    assert refused > 125


def test_a_changed_digit_is_noticed(saved: Path) -> None:
    rewritten(saved, lambda card, _: card["config"].update(blur=4.5), signed=False)
    with pytest.raises(ValueError, match="is damaged: its content does not match its checksum"):
        kd.load(saved)


def test_another_format_is_refused(saved: Path) -> None:
    rewritten(saved, lambda card, _: card.update(format=1))
    with pytest.raises(ValueError, match=r"has format 1, this kdlib reads 4.*'kdlib'"):
        kd.load(saved)


NORMAL = {"floor": 0.5, "fusion": "product", "strength": 1.0, "by": "place", "bases": [0.0], "whitened": False}

TENSORS: dict[str, tuple[Change, str]] = {
    "missing": (lambda card, tensors: tensors.pop(min(tensors)), "do not fit the model"),
    "surplus": (lambda card, tensors: tensors.update({"model.more": torch.zeros(7)}), "do not fit the model"),
    "misshapen": (lambda card, tensors: tensors.update({min(tensors): torch.zeros(7)}), "do not fit the model"),
    "teacher's": (
        lambda card, tensors: tensors.update({"model.teacher.net.conv1.weight": torch.zeros(64, 3, 7, 7)}),
        "1 tensors are missing or surplus, first 'teacher.net.conv1.weight'",
    ),
    "elsewhere": (lambda card, tensors: tensors.update({"more": torch.zeros(7)}), "neither to the model nor"),
    "NaN": (lambda card, tensors: tensors[min(tensors)].view(-1)[:1].fill_(torch.nan), "NaN or infinite values"),
    "infinite": (lambda card, tensors: tensors[min(tensors)].view(-1)[:1].fill_(torch.inf), "NaN or infinite values"),
    "normal maps without a card": (
        lambda card, tensors: tensors.update({"normal.mean_0": torch.ones(1, 1, 2, 2)}),
        r"normal maps have \['mean_0'\]; the card wants none",
    ),
    "a card without normal maps": (
        lambda card, tensors: card.update(normal=NORMAL),
        r"normal maps have \[\]; the card wants \['mean_0'\]",
    ),
}


@pytest.mark.parametrize("which", TENSORS)
def test_tensors_that_do_not_fit(which: str, saved: Path) -> None:
    change, words = TENSORS[which]
    with pytest.raises(ValueError, match=words):
        kd.load(rewritten(saved, change))


CARDS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no threshold": (lambda card: card.pop("threshold"), r"lacks \['threshold'\]"),
    "no precision": (lambda card: card.pop("precision"), r"lacks \['precision'\]"),
    "surplus": (lambda card: card.update(colour="red"), r"unknown fields \['colour'\]"),
    "no top_k": (lambda card: card["config"].pop("top_k"), r"configuration of 'stpm' lacks \['top_k'\]"),
    "surplus setting": (lambda card: card["config"].update(hue=1), r"unknown fields \['hue'\]"),
    "fractional count": (lambda card: card["config"].update(top_k=2.5), "top_k is 2.5"),
    "text for config": (lambda card: card.update(config="stpm"), "config is 'stpm'"),
    "unknown method": (lambda card: card.update(method="magic"), "unknown method 'magic'"),
    "method of another type": (lambda card: card.update(method=None), "method is None"),
    "size of one": (lambda card: card.update(size=[32]), r"size is \[32\]"),
    "size of 0": (lambda card: card.update(size=[0, 64]), r"size is \(0, 64\)"),
    "NaN threshold": (lambda card: card["threshold"].update(value=float("nan")), "value is nan"),
    "infinite threshold": (lambda card: card["threshold"].update(value=float("inf")), "value is inf"),
    "no n": (lambda card: card["threshold"].pop("n"), r"threshold lacks \['n'\]"),
    "n of 0": (lambda card: card["threshold"].update(n=0), "n is 0"),
    "quantile": (lambda card: card["threshold"].update(quantile=95.0), "quantile is 95"),
    "rate": (lambda card: card["threshold"].update(high=1.5), "high 1.5"),
    "threshold of null": (lambda card: card.update(threshold=None), "threshold is None"),
    "scale": (lambda card: card["scale"].update(low=2.0, high=1.0), "expected low below high"),
    "precision": (lambda card: card.update(precision="fp8"), "precision is 'fp8'; expected one of fp32, bf16, fp16"),
    "strides": (lambda card: card.update(strides=[4, 8]), r"names teacher 'resnet18.tv_in1k' at strides \(4, 8\)"),
    "teacher of null": (lambda card: card.update(teacher=None), "teacher is None"),
    "versions": (lambda card: card["versions"].update(torch=2), "version of 'torch' is 2"),
    "white": (lambda card: card.update(white=12), "white is 12; expected none, or 255 to 65535"),
    "normal": (lambda card: card.update(normal="half"), "normal is 'half'; expected named values"),
    "floor": (lambda card: card.update(normal=NORMAL | {"floor": "half"}), "floor is 'half'"),
    "fusion": (lambda card: card.update(normal=NORMAL | {"fusion": "min"}), "fusion is 'min'"),
    "no bases": (lambda card: card.update(normal={"floor": 0.5, "fusion": "sum"}), r"lacks \['bases', 'by'"),
}  # fmt: skip


@pytest.mark.parametrize("which", CARDS)
def test_every_field_of_a_card_is_checked(which: str, saved: Path) -> None:
    change, words = CARDS[which]
    with pytest.raises(ValueError, match=words):
        kd.load(rewritten(saved, lambda card, _: change(card)))


def test_other_teacher_weights_are_refused(saved: Path, tmp_path: Path) -> None:
    other = kd.teachers.classifier("resnet18", "random").state_dict()
    other["conv1.weight"] = other["conv1.weight"] + 0.001
    save_file(other, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"seed 1000003 \(random\), here the teacher has other\.safetensors"):
        kd.load(saved, weights=tmp_path / "other.safetensors")
    save_file(kd.teachers.classifier("resnet18", "random").state_dict(), tmp_path / "same.safetensors")
    assert kd.load(saved, weights=tmp_path / "same.safetensors").model.teacher.weights.kind == "file"


@pytest.mark.filterwarnings("ignore:.*RANDOM:UserWarning")
def test_a_card_makes_nobody_download_or_open_a_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    build = kd.methods.build
    monkeypatch.delenv("KDLIB_DOWNLOAD", raising=False)
    monkeypatch.setattr(
        "kdlib.methods.build", lambda name, **settings: asked.append(settings["weights"]) or build(name, **settings)
    )
    rewritten(saved, lambda card, _: card["config"].update(weights="hub"))
    assert kd.load(saved).model.teacher.weights.kind == "random" and asked == ["auto"]
    rewritten(saved, lambda card, _: card["config"].update(weights="/there/weights.pth"))
    with pytest.raises(ValueError, match=r"'/there/weights\.pth'; a file that only a card names is not opened unasked"):
        kd.load(saved)
    assert kd.load(saved, weights="auto").model.teacher.weights.kind == "random" and asked == ["auto", "auto"]


def test_a_failing_save_keeps_the_former_files(
    detector: kd.Detector, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(*arguments: object) -> None:
        raise OSError("no space left on device")

    for where in ("kdlib.files.save_file", "kdlib.files.os.replace"):
        monkeypatch.setattr(where, full)
        with pytest.raises(OSError, match="no space"):
            kd.save(detector, saved)
        monkeypatch.undo()
        assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_half_precision_takes_half_the_space_and_loads_in_full(detector: kd.Detector, tmp_path: Path) -> None:
    whole, half = (kd.save(detector, tmp_path / str(half), half=half) for half in (False, True))
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    loaded = kd.load(half)
    assert {p.dtype for p in loaded.model.student_parameters()} == {torch.float32}
    for p, q in zip(loaded.model.student_parameters(), detector.model.student_parameters(), strict=True):
        assert torch.equal(p, q.half().float())


def test_a_note_is_kept_with_the_weights(detector: kd.Detector, tmp_path: Path) -> None:
    assert saving.noted(kd.save(detector, tmp_path / "a", note={"seed": 3})) == {"seed": 3}
    assert saving.noted(kd.save(kd.load(tmp_path / "a"), tmp_path / "b")) == {}


def test_weights_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a weight is 7e\\+04; 16-bit floats end at 65504: save without half"):
        kd.scoring.saving.halved(torch.tensor([1.0, 7e4]))
    counts = torch.tensor([3])
    assert kd.scoring.saving.halved(counts) is counts
