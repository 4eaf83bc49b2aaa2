"""MemKD: a student that asks a memory of normality at every stage, so that it cannot forget what normal looks like.

    reverse    t1, t2, t3 --> MFF + OCE --> z --> M0 --> stage --> s3 --> M1 --> stage --> s2 --> M2 --> stage --> s1
    forward    image --> stage --> s1 --> M1 --> stage --> s2 --> M2 --> stage --> s3
    memory M   f --> a = softmax(cos(keys, f)) --> recalled = a . values --> [f, recalled]
    exemplars  t of other normal images --> M, asked by its values --> recalled, which should be t

Loss: `L = mean_l L_KD + 0.1 mean_m L_NM + 0.1 sum_m L_ORTH`, for levels l and memories m

    `L_KD`    mean over positions of 1 - cos(t, s), as the score
    `L_NM`    mean over exemplars and positions of ||t/|t| - r/|r|||^2 / 2, which is 1 - cos(t, r); r is recalled
    `L_ORTH`  mean over all pairs of a key and a value of cos^2, so that the two differ

Paper: Gu, Liu, Chen, Yi, Wang, Wang, Ma. Remembering Normality: Memory-guided Knowledge Distillation for Unsupervised
    Anomaly Detection. ICCV 2023.
Differs from the paper: its text was not at hand, only its abstract, notes of others, and a re-implementation by others
    (SimonThomine/RememberingNormality), from which most of this is RECONSTRUCTED. The form of L_ORTH and the
    schedule are unverified; 50 slots, 16 exemplars and the weights are what that code attributes to the paper. The
    temperature is ours: with 1, as published, 50 slots get shares that are nearly alike.
Differs from the public code: there keys and values are no parameters: they are neither trained nor saved
    (`trainable=False` freezes ours, which are saved). It sums over a batch where we take means, L_ORTH excepted, which
    so weighs 16 times less there, in a batch of 16, than here. L_ORTH is signed there and can fall to -1, to values
    opposite to keys (`orthogonality="signed"`). A second public code asks the keys in L_NM (`exemplars_ask="keys"`).
    Maps are summed as they are, not divided by their sizes. The last epoch is kept. Teachers whose features can be
    negative get students without a ReLU behind each stage; widths follow any timm teacher.
The `quick` and `full` presets differ further: EfficientNet-Lite0, its features averaged over 3 x 3 positions, a falling
    rate, clipped gradients and batches of 8, as in `rd/full`, from which they are taken over without trials.
The forward direction is registered as `memkd_forward`.
Taught in: notebooks/11_memory.ipynb, "Build it".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from kdlib import losses, teachers
from kdlib.config import DistillerConfig
from kdlib.contract import Batch, Distiller, Losses, Pairs, Parameters, Phase, TrainingSet
from kdlib.layers.decoder import PyramidDecoder
from kdlib.layers.recall import Asked, NormalityMemory, RecallTrunk
from kdlib.layers.students import ReverseStudent
from kdlib.schedules import Schedule, named


@dataclass(frozen=True, kw_only=True)
class MemKDConfig(DistillerConfig):
    """Defaults are those of the public code, in reverse, but for `trainable` and `orthogonality`.

    Attributes:
        strides: In reverse the coarsest level has the embedding's size; it is not restored, but exemplars for the
            first memory come from it. Forward imitates all levels.
        direction: `reverse`, as RD, or `forward`, as STPM.
        lr: Adam learning rate.
        betas: Adam's momenta; the rise to `peak` moves the first.
        peak: Where `schedule` is constant: the learning rate rises to this multiple and falls (OneCycle); 1 keeps it.
        block: Residual block of the student; `auto` is the teacher's.
        embed_blocks: In reverse: residual blocks of the embedding (OCE); `None` follows the teacher.
        slots: Keys of a memory, and values.
        temperature: Of the softmax over slots; 1 as published, small values recall sharply.
        trainable: Train keys and values; `False` leaves them random, as in the public code.
        exemplars: Normal images in a step that the memories learn from by L_NM.
        exemplars_ask: What exemplars ask in L_NM: the `values`, as published, or the `keys`.
        normality: Weight of L_NM; 0 switches it off.
        orthogonal: Weight of L_ORTH; 0 switches it off.
        orthogonality: `squared` cosines, or `signed` ones as in the public code.
    """

    backbone: str = "wide_resnet50_2"
    strides: tuple[int, ...] = (4, 8, 16, 32)
    epochs: int = 50
    direction: Literal["reverse", "forward"] = "reverse"
    lr: float = 0.005
    betas: tuple[float, float] = (0.5, 0.999)
    peak: float = 10.0
    block: Literal["auto", "basic", "bottleneck"] = "auto"
    embed_blocks: int | None = None
    slots: int = 50
    temperature: float = 1.0
    trainable: bool = True
    exemplars: int = 16
    exemplars_ask: Asked = "values"
    normality: float = 0.1
    orthogonal: float = 0.1
    orthogonality: Literal["squared", "signed"] = "squared"

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = {"slots": self.slots, "exemplars": self.exemplars, "embed_blocks": self.embed_blocks or 1}
        if wrong := {name: count for name, count in counts.items() if count < 1}:
            raise ValueError(f"{wrong} is below 1; expected counts of 1 or more (normality=0 needs no exemplars)")
        if self.temperature <= 0 or self.peak < 1 or min(self.normality, self.orthogonal) < 0:
            raise ValueError(
                f"temperature is {self.temperature}, peak {self.peak}, normality {self.normality}, orthogonal "
                f"{self.orthogonal}; expected a positive temperature, a peak of 1 or more, weights of 0 or more"
            )
        if len(self.teacher_blocks or self.strides) < 2:
            raise ValueError(f"strides is {self.strides}; expected two levels or more, as a memory lies between two")


class MemKD(Distiller):
    """Memory-guided distillation, in reverse or forward. Images in reverse must be multiples of 32 pixels."""

    name = "memkd"
    config: MemKDConfig

    def __init__(self, config: MemKDConfig | None = None) -> None:
        c = config or MemKDConfig()
        super().__init__(c)
        memory = partial(NormalityMemory, slots=c.slots, temperature=c.temperature, trainable=c.trainable)
        self.student: ReverseStudent | RecallTrunk
        if c.direction == "forward":
            self.student = RecallTrunk(self.teacher, memory, block=c.block)
        else:
            self.student = ReverseStudent(
                self.teacher,
                block=c.block,
                embed_blocks=c.embed_blocks,
                decoder=partial(PyramidDecoder, memory=memory),
                embedded=True,
            )

    @property
    def memories(self) -> list[NormalityMemory]:
        """The memories, in the order in which the student passes them."""
        return [module for module in self.student.modules() if isinstance(module, NormalityMemory)]

    def pairs(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Pairs:
        t = self.teach(x, teacher)
        s, _ = self.student(x, t)
        return list(zip(t, s, strict=False))  # in reverse the teacher has a level more

    def loss(self, batch: Batch) -> Losses:
        c = self.config
        levels = losses.over_levels(self.pairs(batch.image, batch.teacher), losses.per_position_cosine)
        distillation = levels.pop("total") / len(levels)
        terms = {"distillation": distillation}
        total = distillation
        if c.normality:
            terms["normality"] = self.memorise(batch.exemplars or batch)
            total = total + c.normality * terms["normality"]
        if c.orthogonal:
            terms["orthogonal"] = self.alignment()
            total = total + c.orthogonal * terms["orthogonal"]
        return {"total": total, **terms, **levels}

    def memorise(self, exemplars: Batch) -> Tensor:
        """L_NM: the distance between exemplars' features and what the memories recall of them, a scalar."""
        t = list(self.teach(exemplars.image, exemplars.teacher))
        if self.config.direction == "reverse":
            t = t[::-1]  # the first memory lies behind the embedding
        terms = []
        for memory, f in zip(self.memories, t, strict=False):  # the last level has no memory behind it
            recalled = memory(f, self.config.exemplars_ask)
            terms.append(0.5 * losses.normalised_l2(f, recalled).mean())
        return torch.stack(terms).mean()

    def alignment(self) -> Tensor:
        """L_ORTH: how far keys and values are from being orthogonal, summed over memories, a scalar."""
        cosines = [memory.alignment() for memory in self.memories]
        signed = self.config.orthogonality == "signed"
        return torch.stack([(c if signed else c.square()).mean() for c in cosines]).sum()

    def phases(self, images: TrainingSet) -> Iterator[Phase]:
        for phase in super().phases(images):
            yield replace(phase, exemplars=self.config.exemplars if self.config.normality else 0)

    def optimiser(self, parameters: Parameters) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=self.config.lr, betas=self.config.betas, fused=True)

    def schedule(self, steps: int) -> Schedule | None:
        c = self.config
        if c.schedule == "constant" and c.peak > 1:
            return named("one_cycle", steps, momentum=True, peak=c.peak)
        return super().schedule(steps)


_QUICK = MemKDConfig(
    backbone=teachers.DEFAULT,
    neighbourhood=3,
    embed_blocks=1,
    exemplars=8,
    batch_size=8,
    steps=250,
    peak=1.0,
    schedule="cosine",
    clip=1.0,
)
PRESETS = {"mvtec": MemKDConfig(), "quick": _QUICK, "full": replace(_QUICK, strides=(8, 16, 32), steps=1500)}
