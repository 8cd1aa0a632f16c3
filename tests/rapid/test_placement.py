"""Cores: divided in async mode, shared in the others."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def test_the_learner_lends_its_cores_to_the_first_actors(tmp_path: Path) -> None:
    plan = plan_cores(config(actors={"count": 2}), list(range(8)), loans=tmp_path)
    first, second = plan.loan(0), plan.loan(1)
    assert first is not None
    assert second is not None
    assert (first.own, first.lent) == ([0, 1], [4, 5])
    assert (second.own, second.lent) == ([2, 3], [6, 7])
    assert first.file == second.file == plan.loans
    # One that joins later shares the cores of the first, which has borrowed already.
    assert plan.loan(2) is None


def test_one_core_is_lent_to_one_actor(tmp_path: Path) -> None:
    plan = plan_cores(config(actors={"count": 2}), [0, 1], loans=tmp_path)
    assert [loan and loan.lent for loan in (plan.loan(0), plan.loan(1))] == [[1], None]


@pytest.mark.parametrize(
    ("sections", "cores"),
    [({"schedule": {"mode": "sync"}}, [0, 1]), ({"run": {"lend_cores": False}}, [0, 1]), ({}, [0])],
    ids=["taking turns", "switched off", "one core"],
)
def test_nothing_is_lent(sections: dict[str, dict[str, object]], cores: list[int], tmp_path: Path) -> None:
    plan = plan_cores(config(**sections), cores, loans=tmp_path)
    assert (plan.loans, plan.loan(0)) == (None, None)


@pytest.mark.parametrize(
    ("parts", "gpus", "share"), [(3, 0, 0), (3, 1, 1 / 3), (3, 2, 1 / 2), (6, 4, 1 / 2), (3, 4, 1)]
)
def test_shares_of_gpus_all_find_a_place(parts: int, gpus: int, share: float) -> None:
    assert gpu_share(parts, gpus) == share
    # A part takes its share of one GPU, so that what counts is how many shares one holds.
    assert gpus * (int(1 / share) if share else 0) >= (parts if gpus else 0)
