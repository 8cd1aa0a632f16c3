"""Brings together what is measured, what was ordered and what there is: how many actors a run has, moment by moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from protocol.status import FleetStatus, ScaleOrder
from rapid.scaling import Scaler
from rapid.supervisor import Supervisor
from telemetry.advisor import Advice, advise, most_full, rate_now
from telemetry.record import Record


class Pilot:
    """For the launcher's loop: give the hub the `account`, and `steer` by the status that it answers."""

    def __init__(self, supervisor: Supervisor, tell: Callable[[str], None]) -> None:
        config = supervisor.plan.config
        self._supervisor = supervisor
        self._fleet, self._tell, self._mode = supervisor.fleet, tell, config.schedule.mode.value
        self._scaler = Scaler(config.actors, time.monotonic())
        self._limit = most_full(
            config.schedule.max_staleness, config.learner.batch_groups, config.actors.concurrent_groups
        )
        self._advice = Advice(None, "")

    def account(
        self, records: Sequence[Record], status: dict[str, Any] | None, *, is_ending: bool = False
    ) -> FleetStatus:
        """The actors there are and what is advised, by the records so far and the hub's last status."""
        self._advice = advise(records, rate_now(status["clients"]) if status else None, self._mode, self._limit)
        scaler, advice = self._scaler, self._advice
        fleet = self._fleet.status(scaler.wanted, scaler.scaling, advice.actors, advice.text)
        return msgspec.structs.replace(fleet, is_ending=is_ending, is_evaluator_gone=self._supervisor.is_evaluator_gone)

    def steer(self, status: dict[str, Any] | None) -> None:
        """Start or dismiss actors as the hub's newest order, the rates or the cluster's room say."""
        order = msgspec.convert(status["order"], ScaleOrder | None) if status else None
        now = time.monotonic()
        ordered, followed = self._scaler.follow(order, now), None
        if self._scaler.scaling != "fixed":
            followed = self._scaler.consider(now, self._advice.actors, self._fleet.room())
        for text in filter(None, (ordered, followed)):
            self._tell(text)
        self._fleet.resize(self._scaler.wanted, renew=ordered is not None)
