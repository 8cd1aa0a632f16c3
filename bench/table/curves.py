"""Equal accuracy, the time to it, and what is saved: pure functions of held-out curves.

A curve is what one run's evaluations came to: time, samples and accuracy (pass@1) at the same optimizer steps in every
run of a task. Definitions, fixed before anything was run (docs/experiments.md):

    mean curve          at each evaluated step, the mean over seeds of time, samples and accuracy
    smoothed curve      accuracy replaced by the trailing mean of the last `window` evaluations of the mean curve
    equal accuracy A*   the last value of the baseline's smoothed curve
    time to A*          the first moment from which the smoothed curve, drawn with straight lines, stays at A* or above
    saving              1 - time / time of the baseline
    interval            2.5 % and 97.5 % quantiles of the saving over bootstrap resamples of the seeds, those of the arm
                        and those of the baseline drawn each for themselves; A* is computed anew in each

Never to reach A* counts as an infinite time, a saving of minus infinity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
LEVELS = (0.025, 0.975)


@dataclass(frozen=True)
class Curve:
    """Held-out accuracy of one run, or the mean of several. All of one length, ascending in `steps`."""

    steps: tuple[int, ...]
    times_s: tuple[float, ...]
    samples: tuple[float, ...]
    """Completions trained on."""
    accuracy: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.steps), len(self.times_s), len(self.samples), len(self.accuracy)}
        if len(lengths) != 1 or not self.steps:
            raise ValueError(f"a curve has columns of {sorted(lengths)} values: expected one length, at least 1")
        if list(self.steps) != sorted(set(self.steps)):
            raise ValueError(f"a curve has steps {self.steps}: expected them ascending")


def trailing_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean of the last `window` values up to each; of fewer where there are no more."""
    return [float(np.mean(values[max(0, end - window) : end])) for end in range(1, len(values) + 1)]


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """The mean over runs, at the steps that all of them evaluated."""
    if not curves:
        raise ValueError("the mean of no curves: expected at least one run")
    common = sorted(set.intersection(*(set(curve.steps) for curve in curves)))
    if not common:
        raise ValueError("the runs have no evaluated step in common; are they of one plan?")
    rows = [[curve.steps.index(step) for step in common] for curve in curves]

    def mean(name: str) -> tuple[float, ...]:
        columns = [
            [getattr(curve, name)[row] for row in of_curve] for curve, of_curve in zip(curves, rows, strict=True)
        ]
        return tuple(float(value) for value in np.mean(columns, axis=0))

    return Curve(tuple(common), mean("times_s"), mean("samples"), mean("accuracy"))


def smooth(curve: Curve, window: int) -> Curve:
    """The smoothed curve."""
    return Curve(curve.steps, curve.times_s, curve.samples, tuple(trailing_mean(curve.accuracy, window)))


def equal_accuracy(baseline: Sequence[Curve], window: int) -> float:
    """A*: where the baseline ends."""
    return smooth(mean_curve(baseline), window).accuracy[-1]


def stays_above_from(xs: Sequence[float], values: Sequence[float], level: float) -> float | None:
    """The first x from which the line through the points stays at `level` or above; None if it ends below."""
    below = [index for index, value in enumerate(values) if value < level]
    if not below:
        return xs[0]
    last = below[-1]
    if last == len(values) - 1:
        return None
    share = (level - values[last]) / (values[last + 1] - values[last])
    return xs[last] + share * (xs[last + 1] - xs[last])


def time_to(curves: Sequence[Curve], level: float, window: int) -> float | None:
    """Time from which the smoothed mean curve stays at `level` or above; None if it never does."""
    curve = smooth(mean_curve(curves), window)
    return stays_above_from(curve.times_s, curve.accuracy, level)


def value_at(xs: Sequence[float], values: Sequence[float], x: float) -> float:
    """The line through the points at x; its ends beyond them."""
    return float(np.interp(x, xs, values))


def saving(time_s: float | None, reference_s: float | None) -> float | None:
    """1 - time / reference; minus infinity for a level never reached, None where the reference is not known."""
    if reference_s is None or reference_s <= 0:
        return None
    return -math.inf if time_s is None else 1.0 - time_s / reference_s


@dataclass(frozen=True)
class Interval:
    """An estimate from all seeds, and where 95 % of the bootstrap resamples lie."""

    estimate: float | None
    low: float | None
    high: float | None
    reached: float
    """Share of the resamples in which the arm reaches A*."""


def saving_interval(
    arm: Sequence[Curve], baseline: Sequence[Curve], window: int, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Saving of an arm at equal accuracy. One seed gives no interval: low and high are None then."""
    level = equal_accuracy(baseline, window)
    estimate = saving(time_to(arm, level, window), time_to(baseline, level, window))
    if len(arm) < 2 or len(baseline) < 2:
        return Interval(estimate, None, None, float(estimate is not None and estimate > -math.inf))
    draws = _resample(arm, baseline, window, resamples, seed)
    # By rank and not by numpy's quantile, which would take differences of infinities.
    ranked = sorted(draws)
    low, high = (ranked[round(level * (len(ranked) - 1))] for level in LEVELS)
    return Interval(estimate, low, high, float(np.mean(np.isfinite(draws))))


def _resample(arm: Sequence[Curve], baseline: Sequence[Curve], window: int, resamples: int, seed: int) -> list[float]:
    rng = np.random.default_rng(seed)
    # Few seeds have few different resamples: each is computed once.
    known: dict[tuple[tuple[int, ...], tuple[int, ...]], float] = {}
    is_same = list(arm) == list(baseline)
    draws = []
    for _ in range(resamples):
        ours = tuple(sorted(rng.integers(len(arm), size=len(arm)).tolist()))
        theirs = ours if is_same else tuple(sorted(rng.integers(len(baseline), size=len(baseline)).tolist()))
        if (ours, theirs) not in known:
            drawn, reference = [arm[i] for i in ours], [baseline[i] for i in theirs]
            level = equal_accuracy(reference, window)
            value = saving(time_to(drawn, level, window), time_to(reference, level, window))
            known[ours, theirs] = -math.inf if value is None else value
        draws.append(known[ours, theirs])
    return draws


@dataclass(frozen=True)
class Mean:
    """Mean over seeds, and its standard error: the sample deviation over the root of their number, None for one."""

    value: float
    error: float | None


def mean_of(values: Sequence[float]) -> Mean:
    """Mean and standard error. Raises ValueError without values."""
    if not values:
        raise ValueError("the mean of no values: expected at least one seed")
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    return Mean(float(np.mean(values)), error)
