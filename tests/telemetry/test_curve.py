from __future__ import annotations

import pytest

from telemetry.curve import braille_curve, nice_limits, resample, smooth, sparkline


def test_smoothing_is_a_trailing_mean_that_skips_gaps() -> None:
    # (1), (1+3)/2, (3) since the gap counts for nothing, (5)
    assert smooth([1.0, 3.0, None, 5.0], window=2) == [1.0, 2.0, 3.0, 5.0]


def test_many_values_become_means_and_few_become_lines() -> None:
    assert resample([1.0, 3.0, 5.0, 7.0], 2) == [2.0, 6.0]
    assert resample([0.0, 2.0], 5) == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert resample([], 2) == [None, None]


def test_a_sparkline_spans_its_limits() -> None:
    assert sparkline([0.0, 0.5, 1.0, None, 2.0], 0.0, 1.0) == "▁▅█ █"


def test_a_rising_curve_goes_from_the_lower_left_to_the_upper_right() -> None:
    # One character: columns at levels 0 and 3 of four dots, the right one joined: 4th dot left, upper three right.
    assert braille_curve([0.0, 1.0], 1, 1, 0.0, 1.0) == [chr(0x2800 + 0x40 + 0x08 + 0x10 + 0x20)]


def test_steps_not_done_leave_the_curve_empty() -> None:
    rows = braille_curve([0.0, 0.0, None, None], 2, 2, 0.0, 1.0)
    assert rows == ["", chr(0x2800 + 0x40 + 0x80)]


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        ([0.1, 0.42], (0.0, 0.5)),
        ([0.66], (0.0, 0.7)),
        ([-1.0, 3.0], (-1.0, 3.0)),
        ([None], (0.0, 1.0)),
        ([], (0.0, 1.0)),
    ],
)
def test_limits_are_round_and_hold_zero(values: list[float | None], limits: tuple[float, float]) -> None:
    assert nice_limits(values) == pytest.approx(limits)
