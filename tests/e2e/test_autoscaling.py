"""The number of actors by itself: by the advisor's rates, and with Ray's autoscaler adding and removing nodes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.conftest import Run, rapid

pytestmark = pytest.mark.slow

ENDLESS = ("schedule.steps=100000", "learner.checkpoint_every=100000")
# The policy stands still and nothing is filtered, so that the work is the same throughout.
STEADY = ("learner.lr=1e-12", "buffer.filter_zero_signal=false", "schedule.max_staleness=8")
SCRIPTED = ("actors.engine=scripted", "actors.min=1", "actors.max=3")
CHANGE = re.compile(r"(\d) actors? instead of (\d), by the rates measured")


def actors(run: Run) -> dict[str, Any]:
    """What `rapid top` tells of the number of actors."""
    told = rapid("top", run.folder.name, "--runs", str(run.folder.parent), "--once", "--json")
    assert told.returncode == 0, told.stderr
    return json.loads(told.stdout)["actors"]


def loads(run: Run, actor: str) -> int:
    """How often an actor has loaded weights."""
    log = run.folder / "logs" / f"{actor}.log"
    return log.read_text().count("loaded weights") if log.exists() else 0


def assert_nothing_was_lost(run: Run) -> None:
    """Of a run that is over: every prompt accounted for, no lease taken from anybody, one learner throughout."""
    assert "adds up" in run.ledger()
    events = json.loads((run.folder / "ledger" / "state.json").read_text())["events"]
    assert [events.get(name, 0) for name in ("leases_lost", "leases_expired", "groups_failed")] == [0, 0, 0]
    assert (run.folder / "timeline" / "learner-0.jsonl").read_text().count('"pid":') == 1


def test_slow_generation_brings_actors_up_to_the_most_and_no_further(start: Callable[..., Run]) -> None:
    # 256 tokens a step, so that a learner of up to 1.9 s a step calls for four actors and more.
    slow = ("actors.scripted.tokens_per_s=40", "actors.max_tokens=8", "learner.batch_groups=4")
    run = start("up", *ENDLESS, *STEADY, *SCRIPTED, *slow, "actors.scaling=advice", "actors.settle_s=10")
    run.wait_for_step(1)
    assert (actors(run)["wanted"], len(run.parts("ActorPart"))) == (1, 1)
    learner = [process.pid for process in run.parts("LearnerPart")]
    run.wait_until(lambda: loads(run, "actor-1") and loads(run, "actor-2"), "weights in the new actors")
    changes = [(int(now), int(before)) for now, before in CHANGE.findall(run.output())]
    assert changes[0][1] == 1
    assert changes[-1][0] == 3
    # Long enough for another change, if it were to come.
    since_s = run.records()[-1]["wall_s"]
    run.wait_until(lambda: run.records()[-1]["wall_s"] > since_s + 45, "45 s with three actors")
    told = actors(run)
    assert told["advised"] > 3, "or nothing would have held it back"
    assert (told["wanted"], told["there"], told["scaling"]) == (3, 3, "advice")
    assert len(CHANGE.findall(run.output())) == len(changes)
    assert len(run.parts("ActorPart")) == 3
    assert [process.pid for process in run.parts("LearnerPart")] == learner
    run.interrupt()
    assert run.finish() == 0, run.output()
    assert_nothing_was_lost(run)
    run.assert_left_nothing()


def test_a_slow_learner_brings_actors_down_to_what_it_needs(start: Callable[..., Run]) -> None:
    # Four tokens a step: what each step costs a learner keeps it from what a single engine gives.
    small = ("actors.max_tokens=2", "actors.group_size=2", "actors.concurrent_groups=1", "learner.batch_groups=1")
    scaling = ("actors.count=3", "actors.scaling=advice", "actors.settle_s=30")
    run = start("down", *ENDLESS, *STEADY, *SCRIPTED, *small, *scaling)
    run.wait_until(lambda: all(loads(run, f"actor-{index}") for index in range(3)), "weights in three actors")
    learner = [process.pid for process in run.parts("LearnerPart")]
    run.wait_until(lambda: run.output().count("has left") == 2, "two actors that left")
    assert sorted(re.findall(r"(actor-\d) has left", run.output())) == ["actor-1", "actor-2"]
    assert CHANGE.findall(run.output())[-1][0] == "1"
    run.wait_until(lambda: len(run.parts("ActorPart")) == 1, "end of two processes")
    run.wait_for_step(run.records()[-1]["step"] + 5)
    assert [process.pid for process in run.parts("LearnerPart")] == learner
    run.interrupt()
    assert run.finish() == 0, run.output()
    assert_nothing_was_lost(run)
    run.assert_left_nothing()


@pytest.fixture
def growing() -> Iterator[Cluster]:
    """A head for hub and learner, to which Ray's autoscaler (the second version) adds up to three nodes for actors."""
    node = {"CPU": 1, "actor": 1, "object_store_memory": 80 * 2**20}
    types = {"actor": {"resources": node, "node_config": {}, "min_workers": 0, "max_workers": 3}}
    autoscaling = {"max_workers": 3, "idle_timeout_minutes": 0.1, "available_node_types": types}
    cluster = Cluster(
        *("--num-cpus", "2", "--resources", '{"learner": 1}', "--object-store-memory", str(80 * 2**20)),
        autoscaling=autoscaling,
    )
    try:
        cluster.wait()
        yield cluster
    finally:
        cluster.close()


def test_rays_autoscaler_adds_nodes_for_actors_and_takes_them_away(growing: Cluster, start: Callable[..., Run]) -> None:
    scaling = ("actors.scaling=cluster", "actors.count=3", "actors.resource=actor", "learner.resource=learner")
    on_cluster = {"RAY_ADDRESS": growing.address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": growing.token}
    speed = ("actors.scripted.tokens_per_s=400", "learner.threads=1")
    run = start("grown", *ENDLESS, *STEADY, *SCRIPTED, *speed, *scaling, **on_cluster)
    run.wait_until(lambda: all(loads(run, f"actor-{index}") for index in range(3)), "weights in three actors")
    assert growing.nodes() == 4, growing.ray("status", "--address", growing.address).stdout

    less = rapid("scale", "actors", "1", run.folder.name, "--runs", str(run.folder.parent))
    assert less.returncode == 0, less.stderr
    run.wait_until(lambda: growing.nodes() == 2, "end of the two nodes that have no actor")
    assert sorted(re.findall(r"(actor-\d) has left", run.output())) == ["actor-1", "actor-2"]
    run.wait_for_step(run.records()[-1]["step"] + 3)

    run.interrupt()
    assert run.finish() == 0, run.output()
    assert_nothing_was_lost(run)
    growing.wait_until(lambda: growing.parts() == [], "end of all parts")
    growing.wait_until(lambda: growing.nodes() == 1, "end of the last node")
