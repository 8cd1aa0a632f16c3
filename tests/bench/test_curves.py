"""Equal accuracy, times and savings, on curves small enough to work out by hand."""

from __future__ import annotations

import math

import pytest

from bench.table.curves import (
    Curve,
    equal_accuracy,
    mean_curve,
    mean_of,
    saving,
    saving_interval,
    smooth,
    stays_above_from,
    time_to,
    trailing_mean,
    value_at,
)


def curve(accuracy: list[float], step_s: float = 10.0) -> Curve:
    """Evaluations at steps 1, 2, ...; a step is 100 samples."""
    steps = range(1, len(accuracy) + 1)
    return Curve(tuple(steps), tuple(step_s * s for s in steps), tuple(100.0 * s for s in steps), tuple(accuracy))


def test_a_trailing_mean_begins_with_what_there_is() -> None:
    # 1; (1+3)/2; (3+8)/2
    assert trailing_mean([1.0, 3.0, 8.0], 2) == [1.0, 2.0, 5.5]


def test_the_mean_curve_takes_the_steps_that_all_runs_have() -> None:
    first = Curve((0, 5, 10), (0.0, 50.0, 100.0), (0.0, 5.0, 10.0), (0.1, 0.3, 0.5))
    second = Curve((0, 10), (0.0, 140.0), (0.0, 10.0), (0.3, 0.7))
    assert mean_curve([first, second]) == Curve((0, 10), (0.0, 120.0), (0.0, 10.0), (0.2, 0.6))


def test_the_baseline_ends_at_the_mean_of_its_last_evaluations() -> None:
    # Seeds' means: 0.1, 0.3, 0.5; the last two of them: 0.4.
    assert equal_accuracy([curve([0.0, 0.2, 0.4]), curve([0.2, 0.4, 0.6])], 2) == pytest.approx(0.4)


def test_the_time_is_the_first_moment_from_which_the_line_stays_above() -> None:
    # Above 0.5 between 10 and 20, below again at 30, and from half-way between 30 (0.4) and 40 (0.6) on for good.
    assert stays_above_from([10, 20, 30, 40], [0.2, 0.9, 0.4, 0.6], 0.5) == pytest.approx(35.0)


def test_a_line_that_begins_above_is_there_at_once_and_one_that_ends_below_never() -> None:
    assert stays_above_from([10, 20], [0.5, 0.6], 0.5) == 10
    assert stays_above_from([10, 20, 30], [0.1, 0.9, 0.49], 0.5) is None


def test_touching_the_level_counts_as_above() -> None:
    assert stays_above_from([10, 20, 30], [0.1, 0.5, 0.5], 0.5) == pytest.approx(20.0)


def test_a_curve_is_smoothed_before_its_time_is_read() -> None:
    # Trailing means of two: 0.2, 0.4, 0.6; 0.5 lies half-way between 20 s and 30 s.
    assert time_to([curve([0.2, 0.6, 0.6])], 0.5, 2) == pytest.approx(25.0)
    assert smooth(curve([0.2, 0.6, 0.6]), 2).accuracy == pytest.approx((0.2, 0.4, 0.6))


def test_a_saving_is_the_share_of_the_baselines_time_that_is_not_needed() -> None:
    assert saving(30.0, 40.0) == pytest.approx(0.25)
    assert saving(50.0, 40.0) == pytest.approx(-0.25)
    assert saving(None, 40.0) == -math.inf
    assert saving(30.0, None) is None


def test_the_same_curve_in_half_the_time_saves_one_half_in_every_resample() -> None:
    baseline = [curve([0.1, 0.3, 0.5]), curve([0.1, 0.3, 0.5])]
    faster = [curve([0.1, 0.3, 0.5], 5.0), curve([0.1, 0.3, 0.5], 5.0)]
    found = saving_interval(faster, baseline, 1, resamples=50)
    assert (found.estimate, found.low, found.high, found.reached) == (0.5, 0.5, 0.5, 1.0)


def test_the_interval_holds_what_the_seeds_disagree_about() -> None:
    baseline = [curve([0.1, 0.3, 0.5])] * 2
    # One seed needs as long as the baseline, the other half of it: resamples of either alone save 0 or 0.5.
    arm = [curve([0.1, 0.3, 0.5]), curve([0.1, 0.3, 0.5], 5.0)]
    found = saving_interval(arm, baseline, 1, resamples=200)
    assert found.estimate == pytest.approx(0.25)
    assert (found.low, found.high) == (pytest.approx(0.0), pytest.approx(0.5))


def test_resamples_that_never_reach_the_level_count_as_an_infinite_loss() -> None:
    baseline = [curve([0.1, 0.3, 0.5])] * 2
    arm = [curve([0.1, 0.3, 0.6], 5.0), curve([0.1, 0.2, 0.3], 5.0)]
    # Both together end at 0.45, below 0.5; a resample of the first alone ends above.
    found = saving_interval(arm, baseline, 1, resamples=400)
    assert found.estimate == -math.inf
    assert found.low == -math.inf
    assert found.high is not None
    assert found.high > 0
    assert found.reached == pytest.approx(0.25, abs=0.08)


def test_the_baseline_saves_nothing_against_itself() -> None:
    seeds = [curve([0.1, 0.3, 0.5]), curve([0.2, 0.3, 0.4], 12.0), curve([0.0, 0.4, 0.6], 9.0)]
    found = saving_interval(seeds, seeds, 1, resamples=100)
    assert (found.estimate, found.low, found.high) == (0.0, 0.0, 0.0)


def test_one_seed_gives_no_interval() -> None:
    found = saving_interval([curve([0.1, 0.5], 5.0)], [curve([0.1, 0.5])], 1)
    assert (found.estimate, found.low, found.high) == (0.5, None, None)


def test_mean_and_standard_error() -> None:
    # Sample deviation of 1, 3 is sqrt(2); over sqrt(2) that is 1.
    assert (mean_of([1.0, 3.0]).value, mean_of([1.0, 3.0]).error) == (2.0, pytest.approx(1.0))
    assert mean_of([2.0]).error is None


def test_between_two_points_the_line_counts() -> None:
    assert value_at([0.0, 100.0], [0.0, 20.0], 25.0) == 5.0


def test_columns_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one length"):
        Curve((1, 2), (1.0,), (1.0, 2.0), (0.1, 0.2))
