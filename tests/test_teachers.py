"""Teachers: the right levels, by stride or by block; images that fit, and how a network is built."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import torch

from kdlib import teachers
from kdlib.contract import Batch
from kdlib.methods import METHODS

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
SMALL = ("resnet18", "mobilenetv3_large_100", "test_convnext", LITE)


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
        (level,) = pyramid(torch.rand(1, 3, 384, 56))  # 96 rows and 96 channels
    assert level.shape == (1, 96, 96, 14)


def test_a_teacher_is_frozen_and_a_student_is_not() -> None:
    teacher = teachers.teacher("resnet18", weights="random").train()
    student = teachers.student_like(teacher)
    assert not any(m.training for m in teacher.modules()) and all(m.training for m in student.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in student.parameters())
    assert student.channels == teacher.channels and student.fingerprint() != teacher.fingerprint()
    assert not student.eval().training and not any(m.training for m in student.modules())


@pytest.mark.parametrize("backbone", ["resnet18", "wide_resnet50_2", "tf_efficientnet_lite0"])
def test_no_block_of_a_random_student_starts_as_the_identity(backbone: str) -> None:
    student = teachers.student_like(teachers.teacher(backbone, weights="random"))
    norms = [m for m in student.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms and all((norm.weight == 1).all() for norm in norms)


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


def test_bare_names_mean_the_papers_weights() -> None:
    assert teachers.full_name("resnet18") == "resnet18.tv_in1k"
    assert teachers.full_name("wide_resnet50_2") == "wide_resnet50_2.tv_in1k"
    assert teachers.full_name("resnet18.a1_in1k") == "resnet18.a1_in1k"
    assert teachers.full_name(LITE).startswith(f"{LITE}.")


def test_unknown_names_and_levels() -> None:
    with pytest.raises(ValueError, match=r"unknown network 'resnet19'.*for example.*resnet18"):
        teachers.teacher("resnet19")
    with pytest.raises(ValueError, match=r"unknown weights 'resnet18\.magic'.*resnet18\.tv_in1k"):
        teachers.teacher("resnet18.magic")
    with pytest.raises(ValueError, match=r"no level at stride \[3\]; it has \[2, 4, 8, 16, 32\]"):
        teachers.teacher("resnet18", strides=(3, 8), weights="random")
    with pytest.raises(
        ValueError, match=r"no level at stride \[4, 8\]; it has \[16\] only: .*12 blocks .*, like blocks=\(3, 6, 9\)"
    ):
        teachers.teacher("vit_tiny_patch16_224", weights="random")


@pytest.mark.parametrize("strides", [(8, 4), (4, 4), ()])
def test_levels_are_named_once_and_in_order(strides: tuple[int, ...]) -> None:
    """timm gives features in the network's order whatever is asked for, so that (8, 4) had channels of other levels."""
    with pytest.raises(ValueError, match="rising order"):
        teachers.teacher("resnet18", strides, "random")


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


VIT = "vit_tiny_patch16_224"
FEW = {"backbone": VIT, "weights": "random", "teacher_blocks": (2, 4, 6)}


def test_blocks_of_a_transformer_are_levels() -> None:
    vit = teachers.teacher(VIT, weights="random", blocks=(3, 6, 12))
    x = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        features = vit(x)
        whole = vit.net.model.forward_intermediates((x - vit.mean) / vit.std, indices=[2, 5], intermediates_only=True)
    assert vit.strides == (16, 16, 16) and vit.channels == (192, 192, 192)
    assert all(f.shape == (2, 192, 6, 4) for f in features)
    assert torch.equal(features[0], whole[0]) and torch.equal(features[1], whole[1])
    student = teachers.student_like(vit)
    assert student.strides == vit.strides and student.fingerprint() != vit.fingerprint()


def test_levels_that_timm_lists_but_does_not_give_are_not_offered() -> None:
    with pytest.raises(ValueError, match=r"no level at stride \[2\]; it has \[4, 8, 16, 32\]"):
        teachers.teacher("tresnet_m", (2, 4), "random")
    assert teachers.teacher("tresnet_m", weights="random", blocks=(1, 2)).strides == (4, 8)


def test_blocks_of_other_networks_are_their_stages() -> None:
    assert teachers.teacher("resnet18", weights="random", blocks=(1, 3)).strides == (2, 8)
    for blocks in ((0, 1), (5, 6)):
        with pytest.raises(ValueError, match=r"blocks 1 to 5, counted from 1; got \("):
            teachers.teacher("resnet18", weights="random", blocks=blocks)


@pytest.mark.parametrize("method", METHODS)
def test_methods_learn_from_blocks_or_say_that_they_need_halving_strides(method: str) -> None:
    x = torch.rand(2, 3, 64, 64)
    try:
        model = tiny.build(method, **FEW)
    except ValueError as error:
        own = {"efficientad": "expected one level", "mixedteacher": "expected two networks"}
        wanted = [own[method]] if method in own else ["doubles sizes", "(16, 16, 16)"]
        assert all(words in str(error) for words in wanted)
        return
    assert model.teacher.strides == (16, 16, 16) and method not in ("rd", "snl", "dnpkd")
    if method not in ("mean", "nearest"):
        assert model.loss(Batch(image=x, category=torch.zeros(2, dtype=torch.long)))["total"].isfinite()


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("hiera_tiny_224", (64, 64), "choose 224 x 224 px"),
        ("efficientformerv2_s0", (64, 64), "choose 224 x 224 px"),
        ("vit_tiny_patch16_224", (60, 70), "choose 64 x 80 px"),
    ],
)
def test_sizes_that_a_network_cannot_take_are_refused_with_one_that_it_takes(
    name: str, size: tuple[int, int], message: str
) -> None:
    blocks = (2, 4) if name.startswith("vit") else None
    teacher = teachers.teacher(name, (8, 16), "random", blocks=blocks)
    with pytest.raises(ValueError, match=rf"'{name}.*' cannot take images of {size[0]} x {size[1]} px .*{message}"):
        teacher(torch.rand(1, 3, *size))


def test_an_error_that_has_nothing_to_do_with_the_size_stays_what_it_is() -> None:
    teacher = teachers.teacher("resnet18", weights="random")
    with pytest.raises(RuntimeError, match=r"double|dtype|type"):
        teacher(torch.rand(1, 3, 64, 64, dtype=torch.float64))


@pytest.mark.parametrize(
    ("name", "block", "wide", "blocks", "signed"),
    [
        (LITE, "basic", False, (2, 2, 2), True),
        ("resnet18", "basic", False, (2, 2, 2), False),
        ("resnet34", "basic", False, (3, 4, 6), False),
        ("wide_resnet50_2", "bottleneck", True, (3, 4, 6), False),
        ("resnext50_32x4d", "bottleneck", False, (3, 4, 6), False),
        ("resnetv2_50", "bottleneck", False, (3, 4, 6), True),
        ("densenet121", "bottleneck", False, (2, 2, 2), True),
    ],
)
def test_style_is_seen_not_read_from_the_name(
    name: str, block: str, wide: bool, blocks: tuple[int, ...], signed: bool
) -> None:
    torch.manual_seed(1)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    with torch.device("meta"):  # as in the course's outlines: no numbers, and the same answer
        style = teachers.teacher(name, weights="random").style()
    assert (style.block, style.wide, style.blocks, style.signed) == (block, wide, blocks, signed)
    assert torch.equal(torch.rand(1), drawn)


def test_whatever_features_depend_on_changes_the_fingerprint() -> None:
    plain = teachers.teacher(LITE)
    prints = {plain.fingerprint(), teachers.teacher(LITE, neighbourhood=3).fingerprint()}
    prints.add(teachers.teacher(LITE, (4, 8)).fingerprint())
    swin = teachers.teacher("swin_tiny_patch4_window7_224", (4,), "random")
    prints.add(swin.fingerprint())
    index = next(b for name, b in swin.named_buffers() if name.endswith("relative_position_index"))
    index[0, 0] += 1  # not in the state dict, and used in every forward pass
    prints.add(swin.fingerprint())
    plain.std.mul_(2)
    prints.add(plain.fingerprint())
    assert len(prints) == 6
    assert plain.fingerprint() == plain.to(memory_format=torch.channels_last).fingerprint()
    assert len(plain.bfloat16().fingerprint()) == 16


def test_a_student_of_fastvit_trains_in_both_memory_formats() -> None:
    """oneDNN writes beyond its memory in a strided 1x1 convolution of the image, and killed the process."""
    teacher = teachers.teacher("fastvit_t8", weights="random")
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        student = teachers.student_like(teacher).to(memory_format=layout)
        x = torch.rand(2, 3, 64, 64).to(memory_format=layout)
        sum(f.square().mean() for f in student(x)).backward()  # type: ignore[union-attr]
        gradients.append(student.net.stem_0.conv_scale.conv.weight.grad)
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)
