from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rapid import fleet
from rapid.errors import RunFailedError
from rapid.fleet import Fleet
from rapid.placement import CorePlan
from rapid.preflight import Plan
from rapid.recipe import check_config


@pytest.mark.parametrize(
    ("nodes", "room"),
    [
        # The head has free CPUs and may hold no actor; the actors' nodes are full.
        ([{"CPU": 1.9, "learner": 1.0}, {"actor": 0.999}, {"actor": 0.999}], 0),
        ([{"CPU": 1.9, "learner": 1.0}, {"CPU": 1.0, "actor": 1.0}], 1),
        ([{"CPU": 2.5, "actor": 1.0}, {"CPU": 0.9, "actor": 1.0}], 2),
        ([], 0),
    ],
)
def test_room_is_that_of_each_node_by_itself(
    nodes: list[dict[str, float]], room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {str(index): node for index, node in enumerate(nodes)}
    monkeypatch.setattr(fleet, "available_resources_per_node", lambda: free)
    unused: Any = None
    options = {"num_cpus": 1.0, "num_gpus": 0, "resources": {"actor": 0.001}}
    assert Fleet(unused, unused, options, hub_address="", tell=print).room() == room


@pytest.mark.parametrize(
    ("nodes", "cpus", "fitting"),
    [
        # One machine: an actor asks Ray for a hundredth of a CPU, and counts as what it would ask of a cluster.
        ([{"CPU": 4.0, "memory": 1e9}], 0.01, 4),
        ([{"CPU": 1.0}], 0.01, 2),  # as the recipe begins with two
        ([{"CPU": 4.0, "learner": 1.0}, {"CPU": 4.0, "actor": 1.0}, {"CPU": 2.5, "actor": 1.0}], 1.0, 6),
    ],
)
def test_what_the_nodes_could_hold_is_counted_as_if_they_were_idle(
    nodes: list[dict[str, float]], cpus: float, fitting: int, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [{"Alive": True, "Resources": node} for node in nodes] + [{"Alive": False, "Resources": {"CPU": 64.0}}]
    monkeypatch.setattr(fleet.ray, "nodes", lambda: found)
    world.fleet.options = {"num_cpus": cpus, "resources": {"actor": 0.001} if cpus == 1.0 else {}}
    assert world.fleet.status(2, "fixed", None, "").fitting == fitting


class FakeRay:
    """Ray as the fleet sees it: which actors were started, asked to leave and killed. A reference is a name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.placed: set[str] = set()
        self._count = 0
        monkeypatch.setattr(fleet, "ActorPart", SimpleNamespace(options=lambda **_: SimpleNamespace(remote=self._make)))
        monkeypatch.setattr(fleet.ray, "kill", lambda handle: self.calls.append(f"kill {handle.name}"))
        monkeypatch.setattr(fleet.ray, "available_resources", lambda: {"CPU": 0.5})
        monkeypatch.setattr(fleet.ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
        monkeypatch.setattr(fleet.ray, "wait", lambda found, timeout: ([x for x in found if x in self.placed], []))
        monkeypatch.setattr(fleet, "outcome", lambda task: "its process died")

    def _make(self, name: str, *_: Any) -> Any:
        self._count += 1
        self.calls.append(f"start {name}")
        methods = {
            what: SimpleNamespace(remote=lambda *_, what=what, number=self._count: self._call(what, name, number))
            for what in ("run", "placed", "leave", "stop")
        }
        return SimpleNamespace(name=name, **methods)

    def _call(self, what: str, name: str, number: int) -> str:
        if what in ("leave", "stop"):
            self.calls.append(f"{what} {name}")
        return f"{what} {name} {number}"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A fleet on a fake Ray, with the clock and what was told."""
    actors = {"restarts": 1, "min": 2, "count": 2, "leave_s": 30.0}
    config = check_config(
        {"model": {"path": "tiny"}, "task": {"name": "tasks.examples.digits:Digits"}, "actors": actors}, "test"
    )
    plan = Plan(config, "run", Path("run"), Path("model"), num_prompts=10, resume=None)
    found = SimpleNamespace(ray=FakeRay(monkeypatch), told=[], now=0.0)
    options = {"num_cpus": 1.0, "num_gpus": 0, "resources": {}}
    cores = CorePlan([None], [None])
    found.fleet = Fleet(plan, cores, options, "tcp://127.0.0.1:1", found.told.append, clock=lambda: found.now)
    return found


def place_all(world: Any) -> None:
    world.ray.placed = {f"placed actor-{index} {number}" for index in range(9) for number in range(1, 20)}
    world.fleet.watch()


def test_those_without_a_place_go_first_and_then_those_of_the_highest_number(world: Any) -> None:
    world.fleet.resize(2)
    place_all(world)
    world.ray.placed = set()
    world.fleet.resize(3)
    world.ray.calls.clear()
    world.fleet.resize(1)
    assert world.ray.calls == ["leave actor-1", "kill actor-2"]
    assert world.fleet.status(1, "fixed", None, "").leaving == 1


def test_an_actor_that_leaves_is_not_started_again_and_its_number_is_free_once_it_has_left(world: Any) -> None:
    world.fleet.resize(2)
    place_all(world)
    world.fleet.resize(1)
    world.fleet.resize(2)
    assert world.ray.calls[-1] == "start actor-2", "actor-1 is still there"
    world.fleet.ended("run actor-1 2")
    assert world.told[-1] == "actor-1 has left, but not as asked: its process died"
    world.fleet.resize(3)
    assert world.ray.calls[-1] == "start actor-1"
    assert world.fleet.restarted == 0


def test_an_actor_beyond_its_restarts_is_made_up_for_only_by_an_order(world: Any) -> None:
    world.fleet.resize(2)
    world.fleet.ended("run actor-0 1")
    world.fleet.ended("run actor-0 3")
    assert world.told[-1] == "actor-0 ended (its process died); not started again after 2 starts"
    started = len(world.ray.calls)
    for _ in range(5):
        world.fleet.resize(2)
    assert len(world.ray.calls) == started
    world.fleet.resize(2, renew=True)
    assert world.ray.calls[started:] == ["start actor-0"]
    assert world.fleet.restarted == 1


def test_an_actor_that_lived_long_may_be_restarted_as_often_as_a_new_one(world: Any) -> None:
    world.fleet.resize(2)
    for life in range(5):
        place_all(world)
        world.now += 700.0
        world.fleet.ended(next(task for task in world.fleet.tasks() if "actor-0" in task))
        assert world.fleet.restarted == life + 1


def test_without_any_actor_left_the_run_fails(world: Any) -> None:
    world.fleet.resize(1)
    world.fleet.ended("run actor-0 1")
    with pytest.raises(RunFailedError, match="no actor is left; the last one, actor-0"):
        world.fleet.ended("run actor-0 2")


def test_an_actor_that_does_not_leave_is_ended(world: Any) -> None:
    world.fleet.resize(2)
    place_all(world)
    world.fleet.resize(1)
    world.now = 59.0
    world.fleet.watch()
    assert world.ray.calls[-1] == "leave actor-1"
    world.now = 61.0
    world.fleet.watch()
    assert world.ray.calls[-1] == "kill actor-1"


def test_who_waits_for_a_place_says_so_more_and_more_rarely_and_too_few_end_the_run(world: Any) -> None:
    world.fleet.resize(2)
    world.ray.placed = {"placed actor-0 1"}
    for world.now in range(0, 600, 5):
        world.fleet.watch()
    assert [text.split(" for ")[2].split(";")[0] for text in world.told] == ["10 s", "30 s", "90 s", "270 s"]
    assert world.told[0] == ("actor-1 waits for a place with {'CPU': 1.0} for 10 s; free in the cluster: {'CPU': 0.5}")
    world.now = 601.0
    with pytest.raises(RunFailedError, match="1 of at least 2 actors have a place: actor-1 waits"):
        world.fleet.watch()


def test_a_slow_start_is_not_taken_for_want_of_room(world: Any) -> None:
    world.fleet.resize(2)
    world.now = 59.0
    assert world.fleet.room() == 0
    world.now = 61.0
    assert world.fleet.room() == -2
