"""What the hub tells Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from buffer.clients import ClientRecord
from buffer.config import BufferConfig
from buffer.gauges import HubGauges, count_activities
from buffer.machine import Machine
from protocol.config import ScheduleConfig
from protocol.version import PolicyVersion
from telemetry import catalogue
from telemetry.config import TelemetryConfig
from telemetry.exporter import Exporter
from tests.telemetry.scrape import scrape, value


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    exporter = Exporter("hub", TelemetryConfig())
    yield exporter
    exporter.close()


def client(name: str, role: str, waiting_for: str = "") -> ClientRecord:
    return ClientRecord(name, role, b"", 1, "", 0.0, waiting_for=waiting_for)


def test_the_bound_the_schedule_and_the_sum_are_told(exporter: Exporter) -> None:
    schedule = ScheduleConfig(max_staleness=3)
    machine = Machine(BufferConfig(), schedule, 2, 10)
    gauges = HubGauges(exporter, schedule)
    machine.actors.lease("actor-0", 4, PolicyVersion(1, 0), 0.0)
    gauges.update(machine, [client("actor-0", "actor"), client("top", "observer")])
    samples = scrape(exporter)
    assert value(samples, catalogue.HUB_BOUND) == 3
    assert value(samples, catalogue.HUB_SCHEDULE, mode="async") == 1
    assert value(samples, catalogue.HUB_OPENED) == 4
    assert value(samples, catalogue.HUB_ENTRIES, state="leased") == 4
    assert value(samples, catalogue.HUB_CLIENTS, role="observer") == 1


def test_progress_is_marked_when_something_moves_and_only_then(
    exporter: Exporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = ScheduleConfig()
    machine = Machine(BufferConfig(), schedule, 2, 10)
    gauges = HubGauges(exporter, schedule)
    seen = []
    for now, moves in ((100.0, False), (200.0, False), (300.0, True), (400.0, False)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        if moves:
            machine.actors.lease("actor-0", 1, PolicyVersion(1, 0), 0.0)
        gauges.update(machine, [])
        seen.append(value(scrape(exporter), catalogue.HUB_PROGRESS))
    assert seen == [100.0, 100.0, 300.0, 300.0]


def test_activities_carry_no_versions_and_leave_observers_out() -> None:
    clients = [
        client("learner", "learner", "a batch for 1.40"),
        client("actor-0", "actor"),
        client("actor-1", "actor", "a lease"),
        client("actor-2", "actor", "a lease"),
        client("top", "observer"),
    ]
    assert count_activities(clients) == {
        catalogue.LEARNER_STARVES: 1,
        "actor generates": 1,
        "actor waits for a lease": 2,
    }
    assert count_activities([client("l", "learner", "checkpoint 2.7")]) == {"learner waits for checkpoint": 1}
    assert count_activities([client("l", "learner")]) == {"learner trains": 1}
