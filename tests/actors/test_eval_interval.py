"""Intervals of a mean over prompts: by hand at their ends, by simulation as to how often they hold the truth."""

from __future__ import annotations

from math import lgamma

import numpy as np
import pytest

from actors.evaluation.interval import Estimate, estimate_share, student_quantile, wilson
from actors.evaluation.passk import pass_at_k

RUNS = 1500


def test_wilson_as_worked_by_hand() -> None:
    # 10 of 20 at z = 2: centre (0.5 + 0.1) / 1.2 = 0.5, reach 2/1.2·√(0.0125 + 0.0025) = 0.2041.
    low, high = wilson(0.5, 20, 2.0)
    assert (low, high) == pytest.approx((0.29588, 0.70412), abs=1e-5)


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.7062), (2, 4.30265), (3, 3.18245), (9, 2.26216), (49, 2.00958), (999, 1.96234)]
)
def test_student_quantiles_are_those_of_the_tables(freedom: int, value: float) -> None:
    assert student_quantile(0.975, freedom) == pytest.approx(value, rel=2e-3)


def test_nothing_right_leaves_room_above_and_everything_right_below() -> None:
    none = estimate_share([0.0] * 20, 160)
    assert (none.mean, none.low, none.prompts) == (0.0, 0.0, 20)
    # Taken for 20 samples and not for 160: nothing tells how alike completions of a prompt are.
    assert none.high == pytest.approx(student_quantile(0.975, 19) ** 2 / (20 + student_quantile(0.975, 19) ** 2))
    every = estimate_share([1.0] * 20, 160)
    assert (every.low, every.high) == pytest.approx((1 - none.high, 1.0))


def test_one_prompt_tells_nothing_of_the_others() -> None:
    assert estimate_share([0.25], 8) == Estimate(0.25, 0.0, 1.0, 1)
    with pytest.raises(ValueError, match="expected at least one"):
        estimate_share([], 0)


def test_completions_of_one_prompt_do_not_count_as_independent() -> None:
    # Ten prompts always right, ten never: eight draws of each tell no more than one.
    clustered = estimate_share([0.0] * 10 + [1.0] * 10, 160)
    single = estimate_share([0.0] * 10 + [1.0] * 10, 20)
    assert clustered == single
    spread = estimate_share([0.5] * 20, 160)
    assert spread.high - spread.low < 0.5 * (clustered.high - clustered.low)


def true_pass_at(k: int, alpha: float, beta: float) -> float:
    """1 − E[(1−p)^k] for p drawn from Beta(alpha, beta)."""
    return 1 - float(np.exp(lgamma(beta + k) + lgamma(alpha + beta) - lgamma(beta) - lgamma(alpha + beta + k)))


@pytest.mark.parametrize(
    ("alpha", "beta"),
    [(0.5, 0.5), (0.2, 1.8), (2.0, 2.0), (0.1, 2.0), (20.0, 80.0)],
    ids=["either or", "few solved", "alike", "hardly any", "nearly equal"],
)
@pytest.mark.parametrize("k", [1, 8])
@pytest.mark.parametrize("prompts", [20, 100])
def test_intervals_hold_the_truth_as_often_as_they_say(alpha: float, beta: float, k: int, prompts: int) -> None:
    draws, samples = np.random.default_rng(1), 8
    truth = true_pass_at(k, alpha, beta)
    of_count = [pass_at_k(samples, count, k) for count in range(samples + 1)]
    held = 0
    for _ in range(RUNS):
        right = draws.binomial(samples, draws.beta(alpha, beta, prompts))
        found = estimate_share([of_count[count] for count in right], samples * prompts)
        held += found.low <= truth <= found.high
    # Nominally 0.95; the standard error of the share of 1500 runs is 0.006.
    assert 0.91 <= held / RUNS <= 0.995, f"{held / RUNS:.3f}"
