from __future__ import annotations

from typing import Any

import pytest

from telemetry.advisor import advise, most_full, needed_tokens_per_s, rate_at_last, rate_now
from telemetry.catalogue import ACTOR_BUSY, ACTOR_TOKEN_RATE
from telemetry.timeline import Span


def records(
    steps: int, *, wait_s: float, train_s: float, tokens: float, publish_s: float = 0.0
) -> list[dict[str, Any]]:
    """Steps that each waited, worked, and saw so many tokens generated."""
    each = wait_s + train_s + publish_s
    return [
        {
            "step": step,
            "incarnation": 1,
            "wall_s": 100.0 + each * step,
            "train_s": train_s,
            "publish_s": publish_s,
            "generated_tokens_per_s": tokens / each,
        }
        for step in range(1, steps + 1)
    ]


def actor(rate: float | None, busy: float | None, role: str = "actor") -> dict[str, Any]:
    metrics = {ACTOR_TOKEN_RATE.name: rate, ACTOR_BUSY.name: busy}
    return {"role": role, "metrics": {name: value for name, value in metrics.items() if value is not None}}


def test_a_learner_that_waits_needs_what_it_would_use_if_it_did_not() -> None:
    # 1000 tokens a step of 2 s work: 500 tokens/s. Two actors gave 200 tokens/s, so it waited 3 s a step.
    run = records(12, wait_s=3.0, train_s=1.5, publish_s=0.5, tokens=1000)
    assert needed_tokens_per_s(run) == pytest.approx(500)
    advice = advise(run, rate_now([actor(100, 1.0), actor(100, 1.0)]), "async", 99)
    assert advice.actors == 5  # 4.5 actors leave it waiting a tenth of its time
    assert "could use 500 tokens/s, an actor gives 100" in advice.text


def test_actors_held_back_count_for_what_they_could_give() -> None:
    # The learner is the bottleneck: four actors worked a quarter of their time each.
    run = records(12, wait_s=0.0, train_s=5.0, tokens=1000)
    assert rate_now([actor(50, 0.25)] * 4) == 200
    assert advise(run, 200, "async", 99).actors == 1


def test_actors_of_which_each_is_hardly_busy_are_too_many_all_the_same() -> None:
    run = records(12, wait_s=0.0, train_s=5.0, tokens=1000)
    # Twenty engines share the work of one: each shows 4 % of its time, all together 80 %.
    rate = rate_now([actor(10, 0.04)] * 20)
    assert rate == pytest.approx(250)
    assert advise(run, rate, "async", 99).actors == 1


def test_only_the_newest_life_counts() -> None:
    old = records(12, wait_s=0.0, train_s=1.0, tokens=9000)
    # The clock of a run's records begins anew with each life.
    new = [{**record, "incarnation": 2} for record in records(7, wait_s=3.0, train_s=2.0, tokens=1000)]
    assert needed_tokens_per_s([*old, *new]) == pytest.approx(500)
    timeline = {"learner-0": [Span(0.0, 1000.0, "train")], "actor-0": [Span(0.0, 1000.0, "generate")]}
    assert rate_at_last([*old, *new], timeline) == pytest.approx(200)
    assert needed_tokens_per_s([*old, *new[:3]]) is None


def test_rates_that_call_for_more_than_the_bound_keeps_full_do_not_run_away() -> None:
    # An engine with fewer groups gives fewer tokens/s: without a limit, each actor more would call for yet more.
    limit = most_full(max_staleness=2, batch_groups=16, concurrent_groups=16)
    run, wanted = records(12, wait_s=3.0, train_s=2.0, tokens=1000), 1
    for _ in range(10):
        rate = 100 * min(1.0, limit / wanted)
        wanted = advise(run, rate, "async", limit).actors or 0
    assert (limit, wanted) == (3, 3)
    assert "all that the staleness bound keeps full" in advise(run, 100, "async", limit).text


def test_what_a_record_does_not_tell_is_nothing() -> None:
    run = records(12, wait_s=1.0, train_s=1.0, tokens=100)
    run[-1] |= {"generated_tokens_per_s": None, "publish_s": None}
    assert needed_tokens_per_s(run) == pytest.approx(9 * 100 / 10)


def test_it_says_nothing_before_there_is_anything_to_judge_by() -> None:
    run = records(12, wait_s=1.0, train_s=1.0, tokens=100)
    assert advise(run[:4], 100, "async", 99).actors is None
    for clients in ([], [actor(None, None)], [actor(100, 0.01)], [actor(100, 1.0, role="learner")]):
        advice = advise(run, rate_now(clients), "async", 99)
        assert (advice.actors, advice.text) == (None, "no advice: no actor was busy lately")
    assert "take turns" in advise(run, 100, "sync", 99).text


def test_a_run_that_is_over_tells_its_actors_speed_by_its_timeline() -> None:
    run = records(30, wait_s=3.0, train_s=2.0, tokens=1000)
    # Ten steps of 5 s end with the learner; one actor was at it throughout, one came half way, one had gone before.
    timeline = {
        "learner-0": [Span(0.0, 950.0, "train"), Span(950.0, 1000.0, "wait")],
        "actor-0": [Span(0.0, 900.0, "wait"), Span(900.0, 1010.0, "generate")],
        "actor-1": [Span(975.0, 1000.0, "generate"), Span(1000.0, 1010.0, "end")],
        "actor-2": [Span(0.0, 940.0, "generate")],
    }
    assert rate_at_last(run, timeline) == pytest.approx(10 * 1000 / (50 + 25))
    assert rate_at_last(run, {}) is None
    assert rate_at_last([], timeline) is None
