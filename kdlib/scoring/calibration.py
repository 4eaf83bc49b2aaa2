"""What normal images decide: the threshold above which an image is anomalous, and the brightness of anomaly maps.

    calib scores [N]        -> Threshold   one number per data set, with how sure it is
    calib maps [N, H, W]    -> Scale       one (low, high) per data set, never one per image

**The threshold as an order statistic.** If the n calib scores and the score of a future normal image are exchangeable,
it exceeds the k-th smallest of them with a probability of at most (n + 1 - k) / (n + 1), whatever the distribution
(split conformal prediction: Vovk et al., Algorithmic Learning in a Random World, 2005). k = ceil((n + 1) * quantile)
makes that at most 1 - quantile. This is a mean over calibration sets: for one set, the true false-alarm rate of
continuous scores follows Beta(n + 1 - k, k), which gives the interval reported here. Ties can only lower the rate.

With `normal` or `whitened` maps the scores come from cross-fitting (each fifth of the images by statistics of the
others) and the detector's statistics from all of them, so that the scores are exchangeable only nearly.

**Too few images.** Where k exceeds n, the highest calib score is the threshold, and what can be promised is a rate of
1 / (n + 1), more than was asked for. A quantile of 0.95 needs 19 images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta

from kdlib.config import check_fields
from kdlib.scoring.pixel_counts import check_finite


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """A decision threshold and what is known about it.

    Attributes:
        value: Scores above it are anomalous; unit of the scores.
        quantile: Share of normal images that should stay below it, in (0, 1).
        n: Number of normal images that set it.
        false_alarms: Expected share of future normal images above it, in [0, 1].
        low: Lower end of the 95 % interval of the true false-alarm rate.
        high: Upper end of that interval.
    """

    value: float
    quantile: float
    n: int
    false_alarms: float
    low: float
    high: float

    def __post_init__(self) -> None:
        check_fields(self)
        needed(self.quantile)
        if self.n < 1:
            raise ValueError(f"n is {self.n}; expected 1 normal image or more")
        if not 0 <= self.low <= self.false_alarms <= self.high <= 1:
            raise ValueError(
                f"low is {self.low}, false_alarms {self.false_alarms}, high {self.high}; expected shares in this order"
            )

    def decide(self, scores: ArrayLike) -> NDArray[np.bool_]:
        """Which of `scores` [...] are anomalous, True where a score lies above the threshold [...].

        Raises:
            ValueError: If a score is NaN.
        """
        values = np.asarray(scores, dtype=np.float64)
        if np.isnan(values).any():
            raise ValueError(f"{np.isnan(values).sum()} of {values.size} scores are NaN; expected numbers")
        return np.asarray(values > self.value)

    def __str__(self) -> str:
        text = (
            f"threshold {self.value:.4g} from {self.n} normal images: expect {self.false_alarms:.1%} false alarms "
            f"(95 % interval {self.low:.1%} to {self.high:.1%})"
        )
        enough = needed(self.quantile)
        return text if self.n >= enough else f"{text}; {1 - self.quantile:.1%} needs {enough} images"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One brightness scale for all anomaly maps of a data set.

    Attributes:
        low: Score shown as 0 (dark).
        high: Score shown as 1 (light).
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.low < self.high:
            raise ValueError(f"low is {self.low}, high {self.high}; expected low below high")

    def apply(self, amap: ArrayLike) -> NDArray[np.float64]:
        """Map scores of any shape to [0, 1]; what lies outside low and high is clipped."""
        clipped = np.clip(np.asarray(amap, dtype=np.float64), self.low, self.high)
        return np.asarray((clipped - self.low) / (self.high - self.low))


def needed(quantile: float) -> int:
    """The smallest number of normal images that can promise at most 1 - quantile false alarms.

    Raises:
        ValueError: Quantile outside (0, 1).
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile is {quantile}; expected a share strictly between 0 and 1, usually 0.95")
    return _ceil(quantile / (1 - quantile))


def threshold(calib_scores: ArrayLike, quantile: float = 0.95) -> Threshold:
    """The order statistic described at the top of this file, with the Beta distribution of its false-alarm rate.

    Args:
        calib_scores: [N], image scores of held-out normal images.
        quantile: Share of normal images to accept, in (0, 1).

    Raises:
        ValueError: No scores, not [N], NaN or infinite scores, quantile outside (0, 1).
    """
    scores = np.sort(_some(calib_scores, "calib scores"))
    if scores.ndim != 1:
        raise ValueError(f"calib scores have shape {scores.shape}; expected [N], one score per normal image")
    n = scores.size
    k = n if n < needed(quantile) else _ceil((n + 1) * quantile)
    rate = beta(n + 1 - k, k)
    low, high = rate.interval(0.95)
    return Threshold(
        value=scores[k - 1], quantile=quantile, n=n, false_alarms=rate.mean(), low=float(low), high=float(high)
    )


def display_scale(calib_maps: NDArray[np.generic] | Sequence[NDArray[np.generic]]) -> Scale:
    """The scale on which normal images look dark and defects light.

    0 is the median normal pixel, 0.5 the score that one normal pixel in a thousand exceeds, 1 lies as far above that
    again. Maps without any spread get the narrowest scale there is, so that whatever exceeds them is light.

    Args:
        calib_maps: [N, H, W], or a sequence of [H, W] whose sizes may differ; maps of held-out normal images.

    Raises:
        ValueError: No maps, NaN or infinite scores.
    """
    parts = [np.ravel(amap) for amap in calib_maps]
    values = _some(np.concatenate(parts) if parts else [], "calib maps")
    low, rare = (float(q) for q in np.quantile(values, (0.5, 0.999)))
    return Scale(low=low, high=max(low + 2 * (rare - low), math.nextafter(low, math.inf)))


def _ceil(count: float) -> int:
    """Rounded up, where (n + 1) * 0.95 may come out a hair above the whole number it stands for."""
    return math.ceil(round(count, 6))


def _some(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError(f"{name} are empty; expected at least one normal image: set some training images aside")
    check_finite(array, name)
    return array
