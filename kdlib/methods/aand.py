"""AAND: before a student learns, the teacher learns to answer defects louder; the student then practises its worst.

    image --> teacher (frozen) --> f1, f2, f3 --> amplifiers --> t1, t2, t3 --> bottleneck --> decoder
      ^                            |   |   |                     |   |   |                        |
    stage I: synthetic defects     1 - cos: map of stage I       1 - cos: map of stage II <-- s1, s2, s3

Amplifier of a level: `t = f + w d`, gate w in 0..1 from a memory, residual `d = tanh(P(f)) f`.
Loss, stage I, on synthetic defects with masks m: `L = sum_l [L_focal(w, m) + 0.1 L_push]`, where
    `L_push = mean_{i normal, j abnormal} max(0, cos(f_i, t_j) - (cos(f_i, f_j) - 0.3))`;
    stage II, on normal images: `L = sum_l [1 - cos(vec t, vec s) + mean_{10 worst positions} (1 - cos(t(p), s(p)))]`.

Paper: Tang, Zhou, Li, Dong, Wang. Advancing Pre-trained Teacher: Towards Robust Feature Discrepancy for Anomaly
    Detection. arXiv 2405.02068, 2024.
Differs from the paper: its text was not at hand; what is here follows the official code.
Differs from the official code: training ends after the last step; the code chooses its checkpoints by results on the
    test set. A rule that looks at one image finds the product, in place of a table of thresholds per category; textures
    are rendered unless a folder of them is given (`textures`); torchvision changes their colours. Widths, positions and
    masks follow any timm teacher. Images are resized bilinearly. The gate is clamped before its logarithm is taken.
    `shifted` and `structure` are VAND-GNL's, a successor by the same authors for images in other light, blurred, noisy
    or turned, here on the amplified teacher; its segmentation network is left out.
    With `teacher_blocks` a vision transformer teaches at three blocks, and the student is a transformer, as in the
    code's second version; there that student is CLIP's, and its 1x1 convolutions start with larger weights.
The `quick` preset differs further: EfficientNet-Lite0 teaches, its features averaged over 3 x 3 positions
    (`neighbourhood`, PatchCore's idea), batches of 8, hundreds of steps, a third of them for stage I, fewer pairs for
    the push. The `full` preset takes over what `rd/full` has, with half as many steps again for stage I. Both without
    trials of their lengths; that amplifiers help was tried on tuning images (`study finish`).
Taught in: notebooks/12_aand.ipynb, "Build it".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import MultiStepLR

from kdlib import losses, teachers
from kdlib.contract import Batch, Losses, Pairs, Phase, TrainingSet
from kdlib.layers.amplifier import Amplifier
from kdlib.layers.supervision import covered, focal, push, weighted_mean
from kdlib.layers.transformer import TransformerStudent
from kdlib.methods.rd import RD, RDConfig
from kdlib.schedules import Schedule
from kdlib.synthesis.defects import Defects
from kdlib.synthesis.shifts import Shifts
from kdlib.synthesis.textures import textures

_WEIGHTS = ("push", "push_weight", "preserve_weight", "hardest", "shifted", "structure")


@dataclass(frozen=True, kw_only=True)
class AANDConfig(RDConfig):
    """RD's settings and AAND's own; defaults are those of the official code but for `textures`.

    Attributes:
        hardest: Worst restored positions of an image that count on top of RD's loss; 0 leaves that alone.
        amplifier: `gated`, `open` (the gate is 1 everywhere, in stage I the mask) or `none` (stage I is left out).
        amplify_steps: Steps of stage I as a multiple of stage II's.
        items: Memory of the gate: vectors for the normal, and as many for the abnormal.
        push: By how much a defect's cosine with normal features shall fall; the paper's alpha.
        push_weight: Weight of that loss beside the gate's.
        true_gate: In stage I the defect's mask replaces the gate.
        preserve_weight: Weight of `1 - cos(f, t)` at normal positions, which the code computes and leaves out.
        normals: Normal positions of a batch that enter the push, drawn anew in each step.
        anomalies: Abnormal positions of a batch that do.
        textures: What synthetic defects are made of: `rendered`, or a folder of images such as DTD's.
        clean: Share of images of stage I that get no defect.
        on_foreground: Synthetic defects lie on the product only.
        milestones: Shares of a stage's steps after which its rate falls to a fifth; where `schedule` is constant.
        depth: Layers of the transformer student that vision transformers get, a multiple of the levels.
        shifted: Weight of the loss on a copy of every image in other light, sharpness, noise or direction.
        structure: Weight of a loss of channels over positions (`losses.channel_kl`) in stage II.
        score: Map of the `student`, of the `teacher` (stage I alone), or the fusion of `both`.
    """

    epochs: int = 120
    hardest: int = 10
    amplifier: Literal["gated", "open", "none"] = "gated"
    amplify_steps: float = 100 / 120
    items: int = 50
    push: float = 0.3
    push_weight: float = 0.1
    true_gate: bool = True
    preserve_weight: float = 0.0
    normals: int = 5000
    anomalies: int = 1000
    textures: str = "rendered"
    clean: float = 0.2
    on_foreground: bool = True
    milestones: tuple[float, ...] = (0.8, 0.9)
    depth: int = 6
    shifted: float = 0.0
    structure: float = 0.0
    score: Literal["student", "teacher", "both"] = "student"

    def __post_init__(self) -> None:
        super().__post_init__()
        ranges = {
            "0 or more": (_WEIGHTS, lambda n: n >= 0),
            "more than 0": (("amplify_steps",), lambda n: n > 0),
            "1 or more": (("items", "normals", "anomalies", "depth"), lambda n: n >= 1),
            "a share in [0, 1), as some images must get a defect": (("clean",), lambda n: 0 <= n < 1),
            "shares above 0 and up to 1, like (0.8, 0.9)": (("milestones",), lambda m: all(0 < n <= 1 for n in m)),
        }
        for expected, (names, fits) in ranges.items():
            for name in names:
                if not fits(getattr(self, name)):
                    raise ValueError(f"{name} is {getattr(self, name)}; expected {expected}")
        if self.preserve_weight and (self.true_gate or self.amplifier == "open"):
            raise ValueError("preserve_weight does nothing while the mask is the gate; set true_gate=False")
        if self.amplifier == "open" and not self.push_weight:
            raise ValueError("amplifier is 'open' and push_weight 0: nothing would train the residuals; expected more")
        if self.amplifier == "none" and self.score != "student":
            raise ValueError(f"score is '{self.score}' and amplifier 'none'; a map of stage I needs amplifiers")


class AAND(RD):
    """Anomaly amplification and normality distillation. `teacher` is the vanilla network, its features are cached."""

    name = "aand"
    config: AANDConfig

    def __init__(self, config: AANDConfig | None = None) -> None:
        c = config or AANDConfig()
        super().__init__(c)
        channels = () if c.amplifier == "none" else self.teacher.channels
        self.amplifiers = nn.ModuleList(Amplifier(n, items=c.items) for n in channels)

    def new_student(self) -> Any:
        """A transformer, which has `depth` alone, where all levels have one stride, else RD's student."""
        strides = self.teacher.strides
        one_stride = len(strides) > 1 and len(set(strides)) == 1
        return TransformerStudent(self.teacher, self.config.depth) if one_stride else super().new_student()

    @property
    def whitens(self) -> bool:  # type: ignore[override]
        return self.config.score == "student"

    @torch.no_grad()
    def teach(self, x: Tensor, teacher: Sequence[Tensor] | None = None) -> Sequence[Tensor]:
        """The amplified features [B, C, h, w] per level; `teacher` hands in vanilla ones."""
        return self.advance(super().teach(x, teacher))

    def advance(self, features: Sequence[Tensor]) -> Sequence[Tensor]:
        """Amplified features of vanilla ones, [B, C, h, w] per level."""
        if not self.amplifiers:
            return features
        gates = [torch.ones_like(f[:, :1]) if self.config.amplifier == "open" else None for f in features]
        return [amplify(f, gate) for amplify, f, gate in zip(self.amplifiers, features, gates, strict=True)]

    def compare(self, t: Tensor, s: Tensor) -> Tensor:
        """RD's loss of one level's features [B, C, h, w], and that of the worst restored positions."""
        c, loss = self.config, super().compare(t, s)
        if c.hardest:
            loss = loss + losses.hardest_cosine(t, s, c.hardest)
        if c.structure:
            loss = loss + c.structure * losses.channel_kl(t, s, reduction="vandgnl")
        return loss

    def loss(self, batch: Batch) -> Losses:
        terms = super().loss(batch)
        if "shifted" in batch.views:
            twin = super().loss(replace(batch, image=batch.views["shifted"], teacher=None))["total"]
            terms |= {"total": terms["total"] + self.config.shifted * twin, "shifted": twin}
        return terms

    def amplification_loss(self, batch: Batch) -> Losses:
        """The loss of stage I: `focal` trains the gates, `push` the residuals, on the batch's synthetic defects."""
        c = self.config
        with torch.no_grad():
            features = self.teacher(batch.views["defective"])
        terms: dict[str, list[Tensor]] = {"focal": [], "push": [], "preserve": []}
        for amplifier, f in zip(self.amplifiers, features, strict=True):
            mask, product = (covered(batch.views[name], f) for name in ("mask", "foreground"))
            gate = amplifier.gate(f)  # type: ignore[operator]
            t = amplifier(f, mask.float() if c.true_gate or c.amplifier == "open" else gate)
            terms["focal"].append(focal(gate, mask))
            terms["push"].append(push(f, t, product & ~mask, mask, c.push, (c.normals, c.anomalies)))
            terms["preserve"].append(weighted_mean(losses.cosine_distance(f, t)[:, None], ~mask))
        named = {name: torch.stack(levels).sum() for name, levels in terms.items()}
        weights = {"focal": float(c.amplifier == "gated"), "push": c.push_weight, "preserve": c.preserve_weight}
        used = {name: term for name, term in named.items() if weights[name]}
        return {"total": torch.stack([weights[name] * term for name, term in used.items()]).sum(), **used}

    def phases(self, images: TrainingSet) -> Iterator[Phase]:
        c = self.config
        student = replace(
            next(super().phases(images)),
            name="student",
            parameters=list(self.student.parameters()),
            view=Shifts() if c.shifted else None,
        )
        if self.amplifiers:
            steps = max(1, round(c.amplify_steps * student.steps))
            yield replace(
                student,
                name="amplifiers",
                parameters=list(self.amplifiers.parameters()),
                loss=self.amplification_loss,
                view=Defects(textures=textures(c.textures), clean=c.clean, on_foreground=c.on_foreground),
                steps=steps,
                scheduler=self.schedule(steps),
            )
        yield student

    def schedule(self, steps: int) -> Schedule | None:
        falls = [round(share * steps) for share in self.config.milestones]
        return super().schedule(steps) or partial(MultiStepLR, milestones=falls, gamma=0.2)

    def stages(self, x: Tensor) -> dict[str, Pairs]:
        """Pairs of features per stage: `teacher`, vanilla against amplified, and `student`, amplified against it."""
        vanilla = list(super().teach(x))
        return {"teacher": list(zip(vanilla, self.advance(vanilla), strict=True)), "student": self.pairs(x, vanilla)}

    def level_maps(self, x: Tensor) -> list[Tensor]:
        score = self.config.score
        if score == "student":
            return super().level_maps(x)
        chosen = [pairs for stage, pairs in self.stages(x).items() if score in (stage, "both")]
        return [self.distance(a, b)[:, None] for pairs in chosen for a, b in pairs]


_QUICK = AANDConfig(
    backbone=teachers.DEFAULT,
    neighbourhood=3,
    batch_size=8,
    steps=300,
    amplify_steps=1 / 3,
    normals=2000,
    anomalies=400,
)
PRESETS = {
    "mvtec": AANDConfig(),
    "vit": AANDConfig(backbone="vit_base_patch16_clip_224.openai", teacher_blocks=(4, 8, 12), true_gate=False),
    "quick": _QUICK,
    "full": replace(
        _QUICK,
        strides=(8, 16),
        steps=1800,
        amplify_steps=0.5,
        normals=5000,
        anomalies=1000,
        schedule="cosine",
        clip=1.0,
    ),
}
