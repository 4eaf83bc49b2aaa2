"""Level maps that know which directions of disagreement are usual.

    residual r [B, C, h, w]   ->   e = r' S^-1 r / C   [B, 1, h, w]

    r   teacher minus student, as unit vectors; for maps of one minus the cosine, |r|^2 is twice the map
    S   second moment of r over all places of normal images, with a share of its mean diagonal added to the diagonal

A student fails on normal images, too, and more in some directions than in others. The squared length counts all alike.
If r is Gaussian with mean 0 and covariance S on normal images, and as wide
in every direction on a defect (c S, c > 1), its log likelihood ratio is (1 - 1 / c) r' S^-1 r / 2 - C log(c) / 2: it
rises with e alone. This is the Mahalanobis distance, here of a residual; PaDiM (Defard et al., 2021) takes it of the
features themselves. Ours for distillation; none of the papers does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from kdlib.runtime import exact

SHRINKAGE = 0.1


class Moments:
    """Sum of the outer products of residuals over images and places; parts of a set add up to the set."""

    def __init__(self) -> None:
        self.places: list[int] = []
        self.sums: list[Tensor] = []

    @classmethod
    def of(cls, residuals: Iterable[Sequence[Tensor]]) -> Moments:
        """Over all images, of residuals [B, C, h, w] per level, in batches."""
        moments = cls()
        for levels in residuals:
            part = cls()
            for level in levels:
                vectors = exact(level).movedim(1, -1).flatten(0, 2)
                part.places.append(len(vectors))
                part.sums.append((vectors.T @ vectors).cpu())
            moments += part
        return moments

    def __add__(self, other: Moments) -> Moments:
        if not self.sums or not other.sums:
            return self if self.sums else other
        total = Moments()
        total.places = [a + b for a, b in zip(self.places, other.places, strict=True)]
        total.sums = [a + b for a, b in zip(self.sums, other.sums, strict=True)]
        return total


class Whitening(nn.Module):
    """Of every level the inverse of the normal second moment, a buffer `inverse_0`, `inverse_1`, ... [C, C].

    Args:
        inverses: One symmetric matrix [C, C] per level.

    Raises:
        ValueError: If a matrix is not square, not symmetric, or has NaN or infinite values.
    """

    def __init__(self, inverses: Sequence[Tensor]) -> None:
        super().__init__()
        self.levels = len(inverses)
        for level, inverse in enumerate(inverses):
            square = inverse.dim() == 2 and inverse.shape[0] == inverse.shape[1]
            if not square or not torch.isfinite(inverse).all() or not torch.allclose(inverse, inverse.T, rtol=1e-3):
                raise ValueError(
                    f"whitening matrix {level} is {tuple(inverse.shape)}; expected a finite symmetric matrix [C, C]"
                )
            self.register_buffer(f"inverse_{level}", inverse.float())

    @classmethod
    def fit(cls, moments: Moments, shrinkage: float = SHRINKAGE) -> Whitening:
        """The inverses of the moments; `shrinkage` is the share of the mean diagonal that is added to the diagonal.

        Raises:
            ValueError: If residuals are 0 everywhere, NaN or infinite.
        """
        inverses = []
        for level, (total, places) in enumerate(zip(moments.sums, moments.places, strict=True)):
            second = total / places
            scale = second.diagonal().mean()
            if not torch.isfinite(second).all() or scale <= 0:
                raise ValueError(
                    f"residuals of level {level} have a mean square of {scale:.3g}; expected a positive number: "
                    "a student that equals its teacher, or gives NaN, cannot be whitened"
                )
            inverse = torch.linalg.inv(second + shrinkage * scale * torch.eye(len(second), dtype=second.dtype))
            inverses.append((inverse + inverse.T) / 2)
        return cls(inverses)

    def inverses(self) -> list[Tensor]:
        """The matrix [C, C] of each level."""
        return [self.get_buffer(f"inverse_{level}") for level in range(self.levels)]

    def forward(self, residuals: Sequence[Tensor]) -> list[Tensor]:
        """Level maps [B, 1, h, w] of residuals [B, C, h, w]; 1 at most, on the mean over normal images."""
        if len(residuals) != self.levels:
            raise ValueError(f"found residuals of {len(residuals)} levels, whitening of {self.levels}")
        with torch.autocast(residuals[0].device.type, enabled=False):
            return [_squared(r.float(), m) for r, m in zip(residuals, self.inverses(), strict=True)]


def _squared(residual: Tensor, inverse: Tensor) -> Tensor:
    vectors = residual.movedim(1, -1)
    return ((vectors @ inverse) * vectors).sum(-1).unsqueeze(1) / len(inverse)
