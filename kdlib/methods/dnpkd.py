"""DNP-KD: of the teacher's features only a compressed normal pattern, chosen by category, reaches RD's student.

    image --> teacher (frozen) --> t1, t2, t3 --> FaFC --> SubNet --> MFF + OCE --> decoder --> s1, s2, s3
                                           |       ^ per level: rfft2, times a mask per category, irfft2
                                           +--> predictor --> which category's masks
    map: 1 - cos per level of t and s, as in RD

Loss: `L = sum_l mean_b [1 - cos(vec t_l, vec s_l)] + 1e-6 sum_{l,b} |m_l[k_b]|_1 + CE(predictor(t3), category)
    + 1e-5 sum_l MSE(SubNet_l(t_l), SubNet_l(FaFC(t_l)))`, with gains `m = sigmoid(logits)` and the predicted
    category `k_b`; choosing has no gradient, so the predictor learns from CE alone.

Method: Dedicated Normal Pattern Knowledge Distillation (DNP-KD); code: github.com/AutomanXXX/DNP-KD.
RECONSTRUCTED from that code, its framework figure and abstract: the paper's text and tables could not be had.
Differs from the paper: not known beyond the figure, which the default `spectrum="complex"` follows.
Differs from the official code: the spectrum keeps its imaginary part (`real_only` drops it, as the code does by a
    cast); masks on half the spectrum, which filter and learn alike; no biases where a norm cancels them; the sum over a
    batch is written as `batch_size` times the mean; no gradient through the teacher; a blur that scales.
RECONSTRUCTED for any teacher and size: SubNet's widths follow each level's channels; masks are made for the categories
    and sizes of the training images and stretched over frequency for others; the predictor sees the mean of t3, because
    all of it (`flat`, the code's way) costs 1,024 x 16 x 16 weights per category.
Not the paper's: `channel_weight` (SNL's loss), `selection` other than `predicted`, `poolings` other than 2.
The `quick` preset: EfficientNet-Lite0 teaches, batches of 16, 1,200 steps, and `ssl_weight=0`, because that term,
    1e-5 of a mean square, takes a second pass through SubNet, half as much time again as a step of RD.
The `full` preset takes over what `rd/full` has, averaged features too, without a trial of its own.
Taught in: notebooks/04_dnpkd.ipynb, "Build it".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlib import losses, teachers
from kdlib.config import ablation
from kdlib.contract import Batch, Losses, Phase, TrainingSet
from kdlib.layers.frequency_mask import FrequencyMask, Spectrum, filtered, full_l1
from kdlib.layers.subnet import SubNet
from kdlib.methods.rd import RD, RDConfig, mined


@dataclass(frozen=True, kw_only=True)
class DNPKDConfig(RDConfig):
    """Defaults are those of the official code but for `spectrum` and `predictor`.

    Attributes:
        fafc: Compress frequencies before SubNet; without it there are no masks and no predictor.
        subnet: Compress by SubNet before RD's bottleneck.
        spectrum: `complex` (figure) or `real_only` (code: the imaginary part is lost).
        poolings: How often SubNet halves height and width.
        predictor: Sees the mean of the coarsest level, `pooled`, or all of it, `flat`.
        selection: Category of the masks: `predicted`; `oracle`, the true one, see `DNPKD`; `random`, anew
            for every image and call, in scoring too.
        cosine_weight: Weight of RD's loss.
        sparsity_weight: Weight of the masks' L1 norm over the full spectrum, summed over levels and a batch.
        category_weight: Weight of the predictor's cross-entropy.
        ssl_weight: Weight of the squared difference that the masks make after SubNet; 0 saves a second pass through it.
        channel_weight: Weight of the divergence `kdlib.losses.channel_kl`, summed over levels; SNL's loss.
    """

    epochs: int = 50
    batch_size: int = 8
    fafc: bool = True
    subnet: bool = True
    spectrum: Spectrum = "complex"
    poolings: Literal[1, 2, 3] = ablation(2)
    predictor: Literal["pooled", "flat"] = ablation("pooled")
    selection: Literal["predicted", "oracle", "random"] = ablation("predicted")
    cosine_weight: float = 1.0
    sparsity_weight: float = 1e-6
    category_weight: float = 1.0
    ssl_weight: float = 1e-5
    channel_weight: float = 0.0


class CategoryPredictor(nn.Module):
    """A linear classifier of the coarsest features [B, C, h, w], averaged onto a grid.

    Attributes:
        weight: [categories, C, rows, columns] of the grid.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(1, channels, 1, 1)), nn.Parameter(torch.empty(1))
        self._initialise()

    def resize(self, categories: int, rows: int, columns: int) -> None:
        """Makes room for these categories and this grid; a predictor that has them keeps what it learned."""
        shape = (categories, self.weight.shape[1], rows, columns)
        if self.weight.shape != shape:
            # New parameters: a graph that still holds the old ones would give them gradients of the old shape.
            self.weight = nn.Parameter(self.weight.detach().new_empty(shape))
            self.bias = nn.Parameter(self.bias.detach().new_empty(categories))
            self._initialise()

    def forward(self, t: Tensor) -> Tensor:
        """Logits [B, categories] in float32."""
        with torch.autocast(t.device.type, enabled=False):
            rows, columns = self.weight.shape[-2:]
            grid = F.adaptive_avg_pool2d(t.float(), (rows, columns))
            return F.linear(grid.flatten(1), self.weight.flatten(1), self.bias)

    def _initialise(self) -> None:
        bound = self.weight[0].numel() ** -0.5
        for p in (self.weight, self.bias):
            nn.init.uniform_(p, -bound, bound)


class DNPKD(RD):
    """Reverse distillation of dedicated normal patterns. Images must be multiples of 32 pixels.

    Attributes:
        known_category: Category that all images to score show, for `selection="oracle"`. In training each image's own
            is known; scoring predicts it, unless `model.known_category = 2` is set before images of category 2.
    """

    name = "dnpkd"
    config: DNPKDConfig

    def __init__(self, config: DNPKDConfig | None = None) -> None:
        config = config or DNPKDConfig()
        super().__init__(config)
        self.known_category: int | None = None
        channels = self.teacher.channels
        self.masks = nn.ModuleList(FrequencyMask(c) for c in channels) if config.fafc else None
        self.predictor = CategoryPredictor(channels[-1]) if config.fafc else None
        self.subnets = nn.ModuleList(SubNet(c, config.poolings) for c in channels) if config.subnet else None

    def phases(self, images: TrainingSet) -> Iterator[Phase]:
        first = next(iter(images))
        sizes = [(f.shape[-2], f.shape[-1]) for f in self.teach(first.image, first.teacher)]
        self.make_room(len(images.categories), sizes)
        yield from super().phases(images)

    def make_room(self, categories: int, sizes: Sequence[tuple[int, int]]) -> None:
        """Makes masks and predictor for these categories and feature sizes (h, w) per level; `fit` calls it."""
        if self.masks is None or self.predictor is None:
            return
        for mask, size in zip(self.masks, sizes, strict=True):
            mask.resize(categories, *size)  # type: ignore[operator]
        self.predictor.resize(categories, *(sizes[-1] if self.config.predictor == "flat" else (1, 1)))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Makes room for masks and predictor, whose shapes only the training images decide."""
        for name, p in list(self.named_parameters()):
            own = name.startswith(("masks.", "predictor.")) and name in state_dict
            if own and p.shape != state_dict[name].shape:
                module, _, leaf = name.rpartition(".")
                made = nn.Parameter(p.detach().new_empty(state_dict[name].shape), p.requires_grad)
                setattr(self.get_submodule(module), leaf, made)
        return super().load_state_dict(state_dict, strict, assign)

    def restore(self, x: Tensor, t: Sequence[Tensor]) -> tuple[list[Tensor], Losses]:
        kept = list(t)
        if self.predictor is not None:
            known = None
            if self.known_category is not None:
                known = torch.full((len(t[0]),), self.known_category, device=t[0].device)
            kept = self._filter(t, self._gains(t, self._choose(self.predictor(t[-1]), known)))
        return super().restore(x, self._squeeze(kept))

    def loss(self, batch: Batch) -> Losses:
        """The terms with their weights; they add up to `total`."""
        c = self.config
        t = self.teach(batch.image, batch.teacher)
        terms: Losses = {}
        kept = list(t)
        if self.predictor is not None:
            logits = self.predictor(t[-1].detach())
            gains = self._gains(t, self._choose(logits, batch.category))
            kept = self._filter(t, gains)
            l1 = [full_l1(g, f.shape[-1]).mean() for g, f in zip(gains, t, strict=True)]
            terms["sparsity"] = c.sparsity_weight * c.batch_size * torch.stack(l1).sum()
            terms["category"] = c.category_weight * F.cross_entropy(logits, batch.category)
        if self.predictor is not None and c.ssl_weight:
            # One pass for both branches: SubNet treats every image alone.
            both = self._squeeze([torch.cat(pair) for pair in zip(kept, t, strict=True)])
            kept, whole = [f.chunk(2)[0] for f in both], [f.chunk(2)[1] for f in both]
            differences = [F.mse_loss(k.float(), f.float()) for k, f in zip(kept, whole, strict=True)]
            terms["ssl"] = c.ssl_weight * torch.stack(differences).sum()
        else:
            kept = self._squeeze(kept)
        s, own = super().restore(batch.image, kept)
        pairs = list(zip(t, s, strict=True))
        focused = mined(pairs, c, batch.progress)
        terms["cosine"] = c.cosine_weight * losses.over_levels(focused, self.compare)["total"]
        if c.channel_weight:
            terms["channel"] = c.channel_weight * losses.over_levels(pairs, losses.channel_kl)["total"]
        terms |= {name: c.neck_weight * term for name, term in own.items()}
        return {"total": torch.stack(list(terms.values())).sum(), **terms}

    def _choose(self, logits: Tensor, category: Tensor | None) -> Tensor:
        """Category [B] whose masks each image gets."""
        if self.config.selection == "random":
            return torch.randint(logits.shape[1], (len(logits),), device=logits.device)
        return category if self.config.selection == "oracle" and category is not None else logits.argmax(1)

    def _gains(self, t: Sequence[Tensor], category: Tensor) -> list[Tensor]:
        assert self.masks is not None
        return [mask(category, *f.shape[-2:]) for mask, f in zip(self.masks, t, strict=True)]

    def _filter(self, t: Sequence[Tensor], gains: Sequence[Tensor]) -> list[Tensor]:
        return [filtered(f, g, self.config.spectrum) for f, g in zip(t, gains, strict=True)]

    def _squeeze(self, features: Sequence[Tensor]) -> list[Tensor]:
        if self.subnets is None:
            return list(features)
        return [net(f) for net, f in zip(self.subnets, features, strict=True)]


_QUICK = DNPKDConfig(backbone=teachers.DEFAULT, batch_size=16, steps=1200, ssl_weight=0.0)
PRESETS = {
    "mvtec": DNPKDConfig(),
    "quick": _QUICK,
    "full": replace(
        _QUICK,
        strides=(8, 16),
        neighbourhood=3,
        steps=2000,
        batch_size=8,
        schedule="cosine",
        clip=1.0,
    ),
}
