"""The hub's metrics: what the machine knows, given to the exporter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from buffer.machine import Machine
from buffer.states import State
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


class HubGauges:
    """Feeds an exporter."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._counted: Counter[str] = Counter()

    def update(self, machine: Machine, clients_by_role: Mapping[str, int]) -> None:
        """Bring all gauges and counters up to now."""
        self._exporter.set_all(catalogue.HUB_ENTRIES, "state", {x.value: n for x, n in machine.ledger.counts.items()})
        self._exporter.set_all(catalogue.HUB_BUFFERED, "lag", machine.lags())
        self._exporter.set_all(catalogue.HUB_CLIENTS, "role", clients_by_role)
        self._exporter.set(catalogue.HUB_HELD_LEASES, machine.ledger.counts[State.LEASED])
        self._exporter.set(catalogue.HUB_VERSION, machine.version.step)
        for event, metric, labels in _COUNTERS:
            self._exporter.inc(metric, machine.events[event] - self._counted[event], **labels)
            self._counted[event] = machine.events[event]

    def observe_batch_wait(self, seconds: float) -> None:
        """A batch was served after this time."""
        self._exporter.observe(catalogue.HUB_BATCH_WAIT, seconds)
