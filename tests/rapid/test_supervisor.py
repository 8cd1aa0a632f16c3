"""How a start ends that the user or a part keeps from succeeding, on a fake Ray."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rapid import supervisor
from rapid.errors import RunFailedError, StartInterruptedError
from rapid.preflight import Plan
from rapid.recipe import check_config
from rapid.supervisor import Supervisor


class FakeRay:
    """Parts that start when they are named in `ready`. A reference is the name of what it stands for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ready: str) -> None:
        self.ready, self.now, self.looks = ready, 0.0, 0
        for name, what in (("HubPart", "hub"), ("LearnerPart", "learner")):
            monkeypatch.setattr(supervisor, name, SimpleNamespace(options=lambda what=what, **_: self._part(what)))
        bundles = SimpleNamespace(bundle_specs=[{"CPU": 0.01}, {"CPU": 0.01}])
        monkeypatch.setattr(supervisor, "reserve", lambda *_: bundles)
        monkeypatch.setattr(supervisor, "PlacementGroupSchedulingStrategy", lambda *_, **__: None)
        monkeypatch.setattr(supervisor, "time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(supervisor.ray, "cluster_resources", dict)
        monkeypatch.setattr(supervisor.ray, "get", lambda reference: f"answer of {reference}")
        monkeypatch.setattr(supervisor.ray, "wait", self._wait)

    def _part(self, what: str) -> Any:
        methods = {
            name: SimpleNamespace(remote=lambda *_, name=name, **__: f"{what}.{name}")
            for name in ("start", "run", "rendezvous")
        }
        return SimpleNamespace(remote=lambda *_: SimpleNamespace(**methods))

    def _wait(self, references: list[str], timeout: float) -> tuple[list[str], list[str]]:
        self.looks += 1
        self.now += timeout
        return [x for x in references if x in self.ready], []


def make_supervisor(ray: FakeRay, interrupted_s: float) -> Supervisor:
    config = check_config(
        {
            "model": {"path": "tiny"},
            "task": {"name": "tasks.examples.digits:Digits"},
            "run": {"start_timeout_s": 60.0},
        },
        "test",
    )
    plan = Plan(config, "run", Path("run"), Path("model"), num_prompts=10, resume=None)
    return Supervisor(plan, False, print, lambda: ray.now >= interrupted_s)


@pytest.mark.parametrize(("ready", "what"), [((), "the hub"), (("hub.start",), "the learner")])
def test_an_interrupt_ends_a_start_within_a_second(
    ready: tuple[str, ...], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = FakeRay(monkeypatch, *ready)
    with pytest.raises(StartInterruptedError, match=f"interrupted while {what} started: nothing was trained"):
        make_supervisor(ray, interrupted_s=10.0).start()
    assert 10.0 <= ray.now <= 11.0


def test_a_part_that_does_not_start_in_time_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay(monkeypatch)
    with pytest.raises(RunFailedError, match=r"the hub did not start within 60 s; its log is in run/logs"):
        make_supervisor(ray, interrupted_s=1e9).start()
    assert ray.now == pytest.approx(60.0, abs=1.0)
