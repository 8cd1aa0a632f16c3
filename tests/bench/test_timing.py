"""Where the wall time went, on timelines worked out by hand."""

from __future__ import annotations

import pytest

from bench.table.timing import split_time, training_windows
from telemetry.timeline import Span


def spans(*rows: tuple[float, float, str]) -> list[Span]:
    return [Span(start, end, what) for start, end, what in rows]


def test_each_moment_of_training_counts_once() -> None:
    actor = spans((0, 9, "start"), (9, 10, "load"), (10, 14, "generate"), (14, 18, "wait"), (18, 19, "load"))
    actor += spans((19, 23, "generate"), (23, 40, "asleep"))
    learner = spans((0, 8, "start"), (8, 15, "wait"), (15, 17, "train"), (17, 18, "publish"), (18, 22, "wait"))
    learner += spans((22, 25, "train"), (25, 30, "checkpoint"))
    # Window 10 to 25. Generate 10-14 and 19-22, both 22-23, train 15-18 and 23-25, load 18-19, wait 14-15.
    found = split_time({"actor-0": actor, "learner-0": learner})
    assert found == pytest.approx({"generate": 7, "both": 1, "train": 5, "load": 1, "wait": 1})


def test_two_actors_generate_while_either_does() -> None:
    first = spans((0, 1, "load"), (1, 4, "generate"), (4, 9, "wait"))
    second = spans((0, 2, "load"), (3, 6, "generate"), (6, 9, "wait"))
    learner = spans((0, 0.5, "start"), (0.5, 8, "wait"), (8, 9, "train"))
    found = split_time({"actor-0": first, "actor-1": second, "learner-0": learner})
    # 1-6 generate, 6-8 wait, 8-9 train; the second actor's load is under the first one's generation.
    assert found == pytest.approx({"generate": 5, "both": 0, "train": 1, "load": 0, "wait": 2})


def test_a_resumed_run_counts_its_lives_and_not_what_lies_between() -> None:
    actor = spans((0, 5, "start"), (5, 6, "load"), (6, 8, "generate"), (100, 105, "start"), (105, 106, "load"))
    actor += spans((106, 109, "generate"))
    learner = spans((0, 4, "start"), (8, 9, "train"), (100, 104, "start"), (109, 111, "train"))
    assert training_windows(actor, learner) == [(6, 9), (106, 111)]
    assert sum(split_time({"actor-0": actor, "learner-0": learner}).values()) == pytest.approx(8)


def test_a_run_without_timelines_has_no_split() -> None:
    assert set(split_time({}).values()) == {0.0}
