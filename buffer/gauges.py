"""The hub's metrics: what the machine knows, given to the exporter."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

from buffer.clients import ClientRecord
from buffer.machine import Machine
from buffer.states import State
from protocol.config import ScheduleConfig
from protocol.messages import Batch
from telemetry import catalogue
from telemetry.exporter import Exporter
from telemetry.metric import Metric

_COUNTERS: list[tuple[str, Metric, dict[str, str]]] = [
    ("leases_granted", catalogue.HUB_LEASES_GRANTED, {}),
    ("leases_expired", catalogue.HUB_LEASES_EXPIRED, {}),
    ("leases_returned", catalogue.HUB_LEASES_RETURNED, {"reason": "drained"}),
    ("leases_lost", catalogue.HUB_LEASES_RETURNED, {"reason": "actor_gone"}),
    ("groups_failed", catalogue.HUB_LEASES_RETURNED, {"reason": "failed"}),
    ("groups_submitted", catalogue.HUB_GROUPS_SUBMITTED, {}),
    ("leases_unknown", catalogue.HUB_GROUPS_REFUSED, {}),
    ("groups_requeued_stale", catalogue.HUB_GROUPS_STALE, {"outcome": "requeued"}),
    ("groups_dropped_stale", catalogue.HUB_GROUPS_STALE, {"outcome": "dropped"}),
    ("groups_filtered", catalogue.HUB_GROUPS_FILTERED, {}),
    ("dead_letters", catalogue.HUB_DEAD_LETTERS, {}),
    ("tokens_received", catalogue.HUB_TOKENS, {}),
]
"""Event of the machine, and the counter that it feeds."""


_WORK = {"learner": "learner trains", "actor": "actor generates"}
# Versions would make a series of each step.
_VERSION = re.compile(r"(?: for| of)? \d+\.\d+$")


class HubGauges:
    """Feeds an exporter."""

    def __init__(self, exporter: Exporter, schedule: ScheduleConfig) -> None:
        self._exporter = exporter
        self._counted: Counter[str] = Counter()
        self._moved: Any = None
        exporter.set(catalogue.HUB_BOUND, schedule.max_staleness)
        exporter.set(catalogue.HUB_SCHEDULE, 1, mode=schedule.mode.value)

    @property
    def address(self) -> str:
        """Where they are served; empty if they are not."""
        return self._exporter.address or ""

    def update(self, machine: Machine, clients: Iterable[ClientRecord]) -> None:
        """Bring all gauges and counters up to now."""
        present = list(clients)
        self._exporter.set_all(catalogue.HUB_ENTRIES, "state", {x.value: n for x, n in machine.ledger.counts.items()})
        self._exporter.set(catalogue.HUB_OPENED, machine.ledger.opened)
        self._exporter.set_all(catalogue.HUB_BUFFERED, "lag", machine.lags())
        self._exporter.set_all(catalogue.HUB_CLIENTS, "role", Counter(x.role for x in present))
        self._exporter.set_all(catalogue.HUB_ACTIVITY, "activity", count_activities(present))
        self._exporter.set(catalogue.HUB_HELD_LEASES, machine.ledger.counts[State.LEASED])
        self._exporter.set(catalogue.HUB_VERSION, machine.version.step)
        for event, metric, labels in _COUNTERS:
            self._exporter.inc(metric, machine.events[event] - self._counted[event], **labels)
            self._counted[event] = machine.events[event]
        self._mark_progress(machine)

    def _mark_progress(self, machine: Machine) -> None:
        # The same signs of life as those by which the terminal view tells a stall.
        moved = (machine.version, dict(machine.ledger.counts), machine.manifest and machine.manifest.version)
        if moved != self._moved:
            self._moved = moved
            self._exporter.set(catalogue.HUB_PROGRESS, time.time())

    def observe_batch(self, batch: Batch, wait_s: float) -> None:
        """A batch was served after this time."""
        self._exporter.observe(catalogue.HUB_BATCH_WAIT, wait_s)
        for lag in batch.lags:
            self._exporter.observe(catalogue.HUB_GROUP_LAG, lag)


def count_activities(clients: Iterable[ClientRecord]) -> Counter[str]:
    """Learner and actors by what they do: "actor generates", "learner waits for a batch", ..."""
    return Counter(
        f"{x.role} waits for {_VERSION.sub('', x.waiting_for)}" if x.waiting_for else _WORK[x.role]
        for x in clients
        if x.role in _WORK
    )
