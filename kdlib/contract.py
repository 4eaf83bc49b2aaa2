"""The contract that every method keeps: what `fit`, `evaluate` and `score` may ask of it, and what they hand in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import ceil
from typing import Any, ClassVar, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from kdlib import losses, maps, teachers
from kdlib.config import DistillerConfig, Fusion
from kdlib.schedules import Schedule, named

Pairs: TypeAlias = list[tuple[Tensor, Tensor]]
"""One (teacher, student) pair of features [B, C, h, w] per level, equal shapes within a level, fine to coarse."""

Losses: TypeAlias = dict[str, Tensor]
"""Named scalars, means over the batch; `total` is the one that is minimised."""

View: TypeAlias = Callable[[Tensor, torch.Generator], dict[str, Tensor]]
"""Makes named tensors out of one image [3, H, W] in 0..1, drawing from the generator: noise, colours, a defect."""

Parameters: TypeAlias = Sequence[nn.Parameter] | Sequence[dict[str, Any]]
"""What an optimiser takes: parameters, or groups of them with their own settings: `{"params": [...], "lr": 0.01}`."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a method's loss may look at.

    Attributes:
        image: RGB in 0..1 [B, 3, H, W].
        category: Index of the product each image shows [B].
        teacher: Features of the frozen teacher per level, [B, C, h, w] each, where they were computed before.
        views: What the phase's view made of each image, by name, [B, ...] each.
        auxiliary: Images of another set, textures or natural ones, [A, 3, H, W]; as many as the phase asked for.
        exemplars: Further images of the training set, with their teacher features; as many as the phase asked for.
        progress: Share of the phase's steps that are done, in [0, 1).
    """

    image: Tensor
    category: Tensor
    teacher: Sequence[Tensor] | None = None
    views: Mapping[str, Tensor] = field(default_factory=dict)
    auxiliary: Tensor | None = None
    exemplars: Batch | None = None
    progress: float = 0.0

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        return replace(self, **{f.name: _moved(getattr(self, f.name), device) for f in fields(self)})


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, float):
        return value
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Batch):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _moved(entry, device) for name, entry in value.items()}
    return None if value is None else [_moved(entry, device) for entry in value]


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One stretch of training: what is optimised, how, on which loss, for how long."""

    name: str  # shown in progress bars and histories
    parameters: Parameters  # what the optimiser may change; groups may have rates of their own
    optimiser: Callable[[Parameters], torch.optim.Optimizer]
    loss: Callable[[Batch], Losses]
    steps: int
    batch_size: int  # images per step, over all processes
    scheduler: Schedule | None = None  # `None`: the rate is constant
    clip: float | None = None  # largest norm of the gradient over all parameters; a longer one is shortened to it
    balanced: bool = False  # every batch shows all categories equally often, small ones' images more often
    view: View | None = None  # what each image is turned into besides, with one seed per image and step
    auxiliary: int = 0  # auxiliary images in a batch, over all processes; `fit(auxiliary=...)` gives them
    exemplars: int = 0  # further training images in a batch, over all processes
    teacher_fixed: bool = True  # False in a phase that trains the teacher; batches then carry none of its features

    def trained(self) -> list[nn.Parameter]:
        """All parameters that the optimiser may change, whatever groups they are in."""
        groups = (entry["params"] if isinstance(entry, dict) else [entry] for entry in self.parameters)
        return [parameter for group in groups for parameter in group]


class TrainingSet(Protocol):
    """What a method may know of the training images before and between phases.

    Attributes:
        categories: Names of the products.
        held_out: Normal images that no phase trains on, for statistics; without any, the training images.
    """

    categories: tuple[str, ...]

    @property
    def held_out(self) -> TrainingSet: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


def teacher_of(config: DistillerConfig) -> teachers.Teacher:
    """The teacher that a configuration names; see `kdlib.teachers.teacher`."""
    c, strides = config, config.teacher_strides()
    return teachers.teacher(c.backbone, strides, c.weights, blocks=c.teacher_blocks, neighbourhood=c.neighbourhood)


class Distiller(nn.Module):
    """A teacher, a student, and the map of their disagreement.

    A method gives `pairs` and `loss`; besides them `phases` for several, `level_maps` that are no distances of pairs.

    Attributes:
        frozen: Submodules whose weights come from elsewhere: never trained, always in eval mode, and not saved.
        whitens: Whether level maps are distances between features, so that `residuals` can be weighed instead.
        recommended: How its maps are best scored: `whitened`, where it whitens, or `normal`.
        teacher: Gives features per level [B, C, h, w] of images [B, 3, H, W].
    """

    name: ClassVar[str]
    frozen: ClassVar[tuple[str, ...]] = ("teacher",)
    recommended: ClassVar[str] = "whitened"
    cycles_momentum: ClassVar[bool] = False  # whether `one_cycle` moves the optimiser's momentum, too
    product: ClassVar[str] = ""  # submodule whose weights `run` keeps in a file of their own
    config: DistillerConfig
    whitens: bool = True
    teacher: teachers.Teacher

    def __init__(self, config: DistillerConfig) -> None:
        super().__init__()
        self.config = config
        self.teacher = teacher_of(config)

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        """Teacher and student features of images `x` [B, 3, H, W]; `teacher` hands in features computed before."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> Losses:
        """Named losses of a batch, means over images; `total` is minimised."""
        raise NotImplementedError

    def phases(self, images: TrainingSet) -> Iterator[Phase]:
        """Training phases in order. Code between two yields runs between the two phases. Default: one phase."""
        c, steps = self.config, self.steps(len(images))
        yield Phase(
            name=self.name,
            parameters=self.student_parameters(),
            optimiser=self.optimiser,
            loss=self.loss,
            steps=steps,
            batch_size=c.batch_size,
            scheduler=self.schedule(steps),
            clip=c.clip,
        )

    def optimiser(self, parameters: Parameters) -> torch.optim.Optimizer:
        """The paper's optimiser."""
        raise NotImplementedError

    def schedule(self, steps: int) -> Schedule | None:
        """How the learning rate moves over a phase of so many steps; `None` where it is constant."""
        return named(self.config.schedule, steps, momentum=self.cycles_momentum)

    def level_maps(self, x: Tensor) -> list[Tensor]:
        """A map [B, 1, h, w] per level, at its own size, of images `x` [B, 3, H, W]. Default: distances of pairs."""
        return [self.distance(t, s)[:, None] for t, s in self.pairs(x)]

    def residuals(self, x: Tensor) -> list[Tensor]:
        """Teacher minus student [B, C, h, w] per level, of which whitened maps are made."""
        return [losses.residual(t, s) for t, s in self.pairs(x)]

    def distance(self, t: Tensor, s: Tensor) -> Tensor:
        """Distance [B, h, w] of features [B, C, h, w], of which level maps are made. Default: one minus cosine."""
        return losses.cosine_distance(t, s)

    def fuse(self, levels: Sequence[Tensor], size: Sequence[int], fusion: Fusion | None = None) -> Tensor:
        """Anomaly map [B, 1, H, W] of a given size out of level maps [B, 1, h, w]; `None`: the method's fusion."""
        c = self.config
        return maps.fuse(levels, size, fusion=fusion or c.fusion, blur=c.blur, align_corners=c.align_corners)

    def anomaly_map(self, x: Tensor) -> Tensor:
        """Anomaly map [B, 1, H, W] of images `x` [B, 3, H, W]; higher is more anomalous."""
        return self.fuse(self.level_maps(x), x.shape[-2:])

    def image_score(self, amap: Tensor) -> Tensor:
        """Image scores [B] of anomaly maps [B, 1, H, W]."""
        return maps.image_score(amap, self.config.top_k, self.config.margin)

    def forward(self, x: Tensor) -> Tensor:
        return self.anomaly_map(x)

    def teach(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Sequence[Tensor]:
        """The teacher's features, computed without gradient unless they are handed in."""
        if teacher is not None:
            return teacher
        with torch.no_grad():
            return self.teacher(x)

    def train(self, mode: bool = True) -> Distiller:
        """Students follow; what is frozen stays in eval mode."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def is_frozen(self, name: str) -> bool:
        """Whether a parameter or buffer of this name belongs to a frozen submodule."""
        return name.startswith(tuple(f"{module}." for module in self.frozen))

    def student_parameters(self) -> list[nn.Parameter]:
        """Everything trainable outside of what is frozen."""
        return [p for name, p in self.named_parameters() if not self.is_frozen(name)]

    def trained_tensors(self) -> dict[str, Tensor]:
        """What has to be saved: the state without that of frozen submodules."""
        return {name: tensor for name, tensor in self.state_dict().items() if not self.is_frozen(name)}

    def load_trained(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts `trained_tensors` back.

        Raises:
            ValueError: If names or shapes do not fit, or a tensor belongs to a frozen submodule.
        """
        misfit = "these weights do not fit the model ({}); build it as it was when trained"
        own = {name: tensor for name, tensor in tensors.items() if not self.is_frozen(name)}
        wrong = sorted(tensors.keys() - own.keys())
        try:
            result = self.load_state_dict(own, strict=False)
        except RuntimeError as error:
            raise ValueError(misfit.format(error)) from error
        wrong += result.unexpected_keys + [name for name in result.missing_keys if not self.is_frozen(name)]
        if wrong:
            raise ValueError(misfit.format(f"{len(wrong)} tensors are missing or surplus, first '{min(wrong)}'"))

    def steps(self, images: int) -> int:
        """Optimiser steps of one phase over a training set of this many images."""
        c = self.config
        return c.steps if c.steps is not None else c.epochs * ceil(images / min(c.batch_size, images))
