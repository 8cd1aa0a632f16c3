"""Confidence intervals of a mean over prompts.

The prompts are the sample, drawn from all that the task could ask; completions of one prompt resemble each other and
are no independent evidence. So the unit is the prompt: each gives one estimate of its own (of pass@k, say), which holds
the luck of the draw among its completions as well, and the spread of these estimates gives the standard error. That is
the cluster-robust error with prompts as clusters. It is turned into an interval by Wilson's score method with the
effective number of samples n = p(1-p)/SE² (as Korn and Graubard do for surveys, Survey Methodology 24, 1998): unlike
mean ± 2 SE it stays within [0, 1], and does not shrink to a point when nothing, or everything, was right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, variance

LEVEL = 0.95
"""Of all intervals."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over prompts with its interval of LEVEL."""

    mean: float
    low: float
    high: float
    prompts: int
    """Prompts that it rests on."""

    def to_plain(self) -> dict[str, float]:
        """What eval.jsonl holds."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "prompts": self.prompts}


def estimate_share(values: Sequence[float], num_samples: int) -> Estimate:
    """The mean of one estimate in [0, 1] for each prompt, with its interval.

    Args:
        values: by prompt.
        num_samples: completions behind all of them together, beyond which no evidence goes.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("an estimate from no prompts: expected at least one")
    mean, count = fmean(values), len(values)
    if count == 1:
        # How prompts differ from each other cannot be seen in one.
        return Estimate(mean, 0.0, 1.0, count)
    effective = _effective_samples(mean, variance(values) / count, count, num_samples)
    low, high = wilson(mean, effective, student_quantile((1 + LEVEL) / 2, count - 1))
    return Estimate(mean, low, high, count)


def _effective_samples(mean: float, squared_error: float, count: int, num_samples: int) -> float:
    """Independent yes-or-no samples that would leave the same standard error."""
    if mean <= 0.0 or mean >= 1.0:
        # All alike, so that nothing tells how alike completions of one prompt are: take them for the same.
        return count
    return min(mean * (1 - mean) / squared_error, num_samples) if squared_error > 0 else num_samples


def wilson(mean: float, num_samples: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval of a share (JASA 22, 1927), `quantile` standard errors to each side."""
    square = quantile * quantile / num_samples
    centre = (mean + square / 2) / (1 + square)
    reach = quantile / (1 + square) * math.sqrt(mean * (1 - mean) / num_samples + square / (4 * num_samples))
    # The ends are exact at 0 and 1; rounding must not say otherwise.
    low = 0.0 if mean <= 0.0 else max(centre - reach, 0.0)
    high = 1.0 if mean >= 1.0 else min(centre + reach, 1.0)
    return low, high


def student_quantile(share: float, freedom: int) -> float:
    """Student's t below which this share lies: exact for 1 and 2 degrees of freedom, else within 0.2 %.

    Series of Abramowitz and Stegun, 26.7.5.
    """
    if freedom == 1:
        return math.tan(math.pi * (share - 0.5))
    if freedom == 2:
        return (2 * share - 1) / math.sqrt(2 * share * (1 - share))
    z = NormalDist().inv_cdf(share)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
