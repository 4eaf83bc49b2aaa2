"""Every family of timm that offers features gives what is promised, or names a size that works.

All families take minutes (`make long`); some that are made for one image size stand in `test_teachers.py` too.
"""

from __future__ import annotations

import re

import pytest
import timm
import torch

from kdlib import teachers
from kdlib.teachers import network

# The smallest member of each family; of a family that is not here, because timm is newer, the first.
NAMES = (
    "beit_base_patch16_224",
    "halonet_h1",
    "test_byobnet",
    "cait_xxs24_224",
    "coat_tiny",
    "convit_tiny",
    "convmixer_768_32",
    "test_convnext",
    "cpubone_nano",
    "crossvit_tiny_240",
    "cs3darknet_focus_s",
    "cspnext_tiny",
    "davit_tiny",
    "deepseek_vit_412m",
    "deit_tiny_patch16_224",
    "densenet121",
    "dla46x_c",
    "dpn48b",
    "edgenext_xx_small",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "test_efficientnet",
    "efficientvim_m1",
    "efficientvit_b0",
    "efficientvit_m0",
    "vit_tiny_patch16_dinov3_qkvb",
    "fasternet_t0",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "gemma4_vit_167m",
    "ghostnet_050",
    "hardcorenas_b",
    "hgnetv2_b0",
    "hiera_tiny_224",
    "sam2_hiera_tiny",
    "hrnet_w18_small",
    "iformer_t",
    "inception_next_atto",
    "lcnetv2_small",
    "levit_128s",
    "lowformer_b0",
    "test_mambaout",
    "test_coatnet",
    "poolformerv2_s12",
    "gmlp_ti16_224",
    "mobilenetv3_small_050",
    "mobilenetv5_base",
    "mobilevit_xxs",
    "mvitv2_tiny",
    "naflexvit_base_patch16_parfac_gap",
    "nest_tiny",
    "nextvit_small",
    "test_nfnet",
    "pit_ti_224",
    "pvt_v2_b0",
    "qwen3_vit_88m",
    "rdnet_tiny",
    "regnetx_002",
    "repghostnet_050",
    "repvit_m1",
    "res2next50",
    "resnest14d",
    "test_resnet",
    "resnetv2_18",
    "rexnet_100",
    "selecsls42",
    "legacy_seresnet18",
    "sequencer2d_s",
    "shvit_s1",
    "skresnet18",
    "starnet_s050",
    "swiftformer_xs",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window16_256",
    "swinv2_cr_tiny_224",
    "tiny_vit_5m_224",
    "tnt_s_legacy_patch16_224",
    "tresnet_m",
    "twins_svt_small",
    "vgg11",
    "visformer_tiny",
    "vit_tiny_patch16_224",
    "vit_tiny_r_s16_p8_224",
    "vit_relpos_small_patch16_224",
    "samvit_base_patch16",
    "vitamin_small_224",
    "volo_d1_224",
    "ese_vovnet19b_slim_dw",
    "legacy_xception",
    "xception41",
    "xcit_nano_12_p16_224",
)
# Only their outlines are tried.
LARGE = {"gemma4_vit", "deepseek_vit"}
MEMBERS = {timm.model_entrypoint(name).__module__.split(".")[-1]: name for name in NAMES if timm.is_model(name)}
FAMILIES = {family: MEMBERS.get(family, timm.list_models(module=family)[0]) for family in timm.list_modules()}


def check(name: str, size: tuple[int, int]) -> None:
    """Demands finite features of the promised shapes, or an error that names a size that then works."""
    strides = network.outline(teachers.full_name(name)).strides
    several = sorted(set(strides))
    blocks = (1, len(strides)) if len(several) == 1 else None
    teacher = teachers.teacher(name, several, "random", blocks=blocks).to(memory_format=torch.channels_last)
    try:
        features = teacher(torch.rand(1, 3, *size).to(memory_format=torch.channels_last))
    except ValueError as error:
        advice = re.search(r"cannot take images of .* choose (\d+) x (\d+) px", str(error))
        assert advice, error
        size = (int(advice[1]), int(advice[2]))
        features = teacher(torch.rand(1, 3, *size))
    for feature, channels, stride in zip(features, teacher.channels, teacher.strides, strict=True):
        assert feature.shape[:2] == (1, channels) and feature.isfinite().all()
        for got, length in zip(feature.shape[2:], size, strict=True):
            assert length // stride - 3 <= got <= -(-length // stride)  # Inceptions convolve without padding
    assert len(teacher.style().blocks) == len(features)


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str) -> None:
    name = FAMILIES[family]
    try:
        network.outline(teachers.full_name(name))
    except ValueError as error:
        assert "timm gives no feature levels" in str(error)
        return
    if family not in LARGE:
        check(name, (64, 96))
