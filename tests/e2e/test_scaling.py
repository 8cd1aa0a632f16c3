"""More and fewer actors while a run goes on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import rapid

pytestmark = pytest.mark.slow


def scale(run: Any, number: str) -> Any:
    return rapid("scale", "actors", number, run.folder.name, "--runs", str(run.folder.parent))


def loads(run: Any, actor: str) -> int:
    """How often an actor has loaded weights."""
    log = run.folder / "logs" / f"{actor}.log"
    return log.read_text().count("loaded weights") if log.exists() else 0


def test_one_actor_becomes_three_and_one_again_and_nothing_is_lost(start: Callable[..., Any]) -> None:
    sizes = ("actors.engine=scripted", "actors.scripted.tokens_per_s=400", "actors.max=3")
    run = start("scaled", *sizes, "schedule.steps=100000", "learner.checkpoint_every=100000")
    run.wait_for_step(2)
    learner = [process.pid for process in run.parts("LearnerPart")]
    for number, said in (("4", "at most actors.max = 3"), ("0", "expected a whole number from 1")):
        refused = scale(run, number)
        assert refused.returncode == 2
        assert said in refused.stderr
    assert scale(run, "3").returncode == 0
    run.wait_until(lambda: loads(run, "actor-1") and loads(run, "actor-2"), "weights in the new actors")
    assert len(run.parts("ActorPart")) == 3
    assert scale(run, "1").returncode == 0
    run.wait_until(lambda: run.output().count("has left") == 2, "two actors that left")
    assert sorted(re.findall(r"(actor-\d) has left", run.output())) == ["actor-1", "actor-2"]
    run.wait_for_step(run.records()[-1]["step"] + 3)
    assert [process.pid for process in run.parts("LearnerPart")] == learner
    run.interrupt()
    assert run.finish() == 0, run.output()
    assert "adds up" in run.ledger()
    events = json.loads((run.folder / "ledger" / "state.json").read_text())["events"]
    assert events.get("leases_expired", 0) == 0
    # They finished their groups, so that nothing had to be taken from them.
    assert events.get("leases_lost", 0) == 0
    assert events.get("groups_failed", 0) == 0
    run.assert_left_nothing()
    over = scale(run, "2")
    assert over.returncode == 2
    assert "does not go on" in over.stderr


def test_a_run_without_a_maximum_takes_one_actor_a_core_and_no_thousands(start: Callable[..., Any]) -> None:
    run = start("unbounded", "actors.engine=scripted", "actors.scripted.tokens_per_s=400", "schedule.steps=100000")
    run.wait_for_step(2)
    for number, said in (("5000", f"expected at most {os.cpu_count()}"), ("-1", "expected a whole number from 1")):
        refused = scale(run, number)
        assert refused.returncode == 2
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert len(run.parts("ActorPart")) == 1
    run.interrupt()
    assert run.finish() == 0, run.output()


def test_a_hub_that_does_not_answer_is_one_clear_error() -> None:
    said = rapid("scale", "actors", "2", "tcp://127.0.0.1:9")
    assert said.returncode == 2
    assert "its hub does not answer" in said.stderr
