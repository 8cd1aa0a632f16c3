"""Actors and evaluator note for the learner when their cores are free."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from actors.evaluation.spec import EvalSpec
from protocol.core_loan import FIRST_ACTOR, LEARNER, Borrower, CoreLoan, Lender
from protocol.version import PolicyVersion
from tasks.config import EvalConfig
from tests.actors import test_evaluator
from tests.actors.test_rollout import World, model, running

__all__ = ["model"]  # the fixture


def look(folder: Path) -> Borrower:
    """The learner's view."""
    return Borrower(CoreLoan(file=folder / "loans", seat=LEARNER, lent=[0]), 1, lambda number: None)


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_an_actor_needs_its_cores_from_its_first_group_until_its_last(model, tmp_path: Path) -> None:
    learner = look(tmp_path)
    loan = CoreLoan(file=tmp_path / "loans", seat=FIRST_ACTOR, lent=[])

    async def scenario() -> None:
        # Ten groups of 3 completions of 5 tokens or less take 1.5 s.
        world = World(*model, num_prompts=10, loan=loan, scripted={"tokens_per_s": 100.0})
        assert not learner.may_borrow, "an engine that starts needs them"
        async with running(world):
            await world.hub.until(lambda: any(beat.waiting_for == "weights" for beat in world.hub.heartbeats))
            assert learner.may_borrow
            await world.publish(PolicyVersion(1, 0))
            await world.hub.until(lambda: world.hub.groups)
            assert not learner.may_borrow, "the weights are loaded, and others of the groups are generated"
            await world.hub.until(lambda: len(world.hub.groups) == 10)
            await until(lambda: learner.may_borrow)
        assert learner.may_borrow, "an actor that has ended needs none"

    asyncio.run(scenario())


@pytest.mark.parametrize("with_loan", [True, False])
def test_requests_for_leases_say_whether_the_learner_could_use_the_cores(model, tmp_path: Path, with_loan) -> None:
    loan = CoreLoan(file=tmp_path / "loans", seat=FIRST_ACTOR, lent=[]) if with_loan else None

    async def scenario() -> None:
        world = World(*model, num_prompts=2, loan=loan)
        async with running(world):
            await world.publish(PolicyVersion(1, 0))
            await world.hub.until(lambda: len(world.hub.groups) == 2)
        assert {lease.lends for lease in world.hub.leases} == {with_loan}

    asyncio.run(scenario())


def test_an_evaluator_needs_its_cores_while_it_evaluates(model, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("actors.evaluation.evaluator.give_way", lambda niceness: None)
    learner = look(tmp_path)
    Lender(CoreLoan(file=tmp_path / "loans", seat=FIRST_ACTOR, lent=[])).note(works=False)
    assert learner.may_borrow, "there is no evaluator"

    async def scenario() -> None:
        world = test_evaluator.World(*model, tmp_path, EvalSpec.of(EvalConfig(k=(1,)), 1.0))
        assert not learner.may_borrow, "an engine that starts needs them"
        async with test_evaluator.running(world):
            await until(lambda: learner.may_borrow)
            world.runner.gate.clear()
            await world.publish(PolicyVersion(1, 10))
            await until(lambda: not learner.may_borrow)
            world.runner.gate.set()
            await world.hub.until(lambda: len(world.hub.evaluated) == 1)
            await until(lambda: learner.may_borrow)
        assert learner.may_borrow, "an evaluator that has ended needs none"

    asyncio.run(scenario())
