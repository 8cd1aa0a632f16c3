"""Cores: divided in async mode, shared in the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.core_loan import EVALUATOR, FIRST_ACTOR, LEARNER
from rapid.config import RapidConfig
from rapid.placement import gpu_share, plan_cores
from rapid.recipe import check_config


def config(**sections: dict[str, object]) -> RapidConfig:
    return check_config(
        {"model": {"path": "tiny"}, "task": {"name": "reasoning_gym", "dataset": "chain_sum"}, **sections}, "test"
    )


def test_async_gives_the_learner_its_threads_and_the_actors_the_rest() -> None:
    plan = plan_cores(config(learner={"threads": 1}, actors={"count": 2}), [0, 1, 2, 3, 4])
    assert (plan.actors, plan.learner) == ([[0, 1], [2, 3]], [[4]])


def test_two_actors_share_a_core_where_there_are_only_two() -> None:
    plan = plan_cores(config(actors={"count": 2}), [0, 1])
    assert (plan.actors, plan.learner) == ([[0], [0]], [[1]])


def test_taking_turns_gives_all_cores_to_both() -> None:
    plan = plan_cores(config(schedule={"mode": "sync"}), [0, 1])
    assert (plan.actors, plan.learner) == ([[0, 1]], [[0, 1]])


def test_every_part_has_a_core_on_a_single_core() -> None:
    plan = plan_cores(config(actors={"count": 3}, learner={"ranks": 2, "batch_groups": 8}), [7])
    assert (plan.actors, plan.learner) == ([[7]] * 3, [[7]] * 2)


def test_an_actor_that_joins_later_shares_the_cores_of_the_first() -> None:
    plan = plan_cores(config(actors={"count": 2}), [0, 1, 2, 3])
    assert plan.actor(2) == plan.actor(0)


def test_learner_and_first_actors_lend_each_other_their_cores(tmp_path: Path) -> None:
    plan = plan_cores(config(actors={"count": 2}, learner={"threads": 4}), list(range(8)), loans=tmp_path)
    loans = [plan.learner_loan(0), plan.actor_loan(0), plan.actor_loan(1), plan.actor_loan(2)]
    assert [loan and loan.lent for loan in loans] == [
        [0, 1, 2, 3],
        [4, 5],
        [6, 7],
        [],  # one that joins later shares the cores of the first, which has borrowed already; it lends
    ]
    assert [loan and loan.seat for loan in loans] == [LEARNER, FIRST_ACTOR, FIRST_ACTOR + 1, FIRST_ACTOR + 2]
    assert {loan and loan.file for loan in loans} == {plan.loans}


def test_each_rank_borrows_a_share(tmp_path: Path) -> None:
    sections = {"learner": {"threads": 2, "ranks": 2, "batch_groups": 8}}
    plan = plan_cores(config(**sections), list(range(8)), loans=tmp_path)
    assert [loan and loan.lent for loan in map(plan.learner_loan, range(2))] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ("threads", "seat"), [(None, EVALUATOR), (1, None)], ids=["on the actors' cores", "on its own"]
)
def test_an_evaluator_lends_what_it_shares_with_actors(threads: int | None, seat: int | None, tmp_path: Path) -> None:
    evaluation = {"name": "reasoning_gym", "dataset": "chain_sum", "eval": {"every": 4, "threads": threads}}
    plan = plan_cores(config(task=evaluation), list(range(4)), loans=tmp_path)
    loan = plan.evaluator_loan()
    assert (loan and loan.seat) == seat
    assert loan is None or loan.lent == []


def test_one_core_is_lent_to_one_actor(tmp_path: Path) -> None:
    plan = plan_cores(config(actors={"count": 2}), [0, 1], loans=tmp_path)
    assert [loan and loan.lent for loan in (plan.actor_loan(0), plan.actor_loan(1))] == [[1], []]


@pytest.mark.parametrize(
    ("sections", "cores"),
    [
        ({"schedule": {"mode": "sync"}}, [0, 1]),
        ({"run": {"lend_cores": False}}, [0, 1]),
        ({"schedule": {"max_staleness": 0}}, [0, 1]),
        ({}, [0]),
        ({"task": {"name": "countdown", "eval": {"every": 4, "threads": 1}}}, [0, 1]),
    ],
    ids=["taking turns", "switched off", "a bound of 0", "one core", "one core beside the evaluator"],
)
def test_nothing_is_lent(sections: dict[str, dict[str, object]], cores: list[int], tmp_path: Path) -> None:
    plan = plan_cores(config(**sections), cores, loans=tmp_path)
    assert (plan.loans, plan.actor_loan(0), plan.learner_loan(0)) == (None, None, None)


@pytest.mark.parametrize(
    ("parts", "gpus", "share"), [(3, 0, 0), (3, 1, 1 / 3), (3, 2, 1 / 2), (6, 4, 1 / 2), (3, 4, 1)]
)
def test_shares_of_gpus_all_find_a_place(parts: int, gpus: int, share: float) -> None:
    assert gpu_share(parts, gpus) == share
    # A part takes its share of one GPU, so that what counts is how many shares one holds.
    assert gpus * (int(1 / share) if share else 0) >= (parts if gpus else 0)
