"""What those who watch a run read of it: the hub's status, and the step records wherever they can be had."""

from __future__ import annotations

import logging
import time
from concurrent.futures import CancelledError, Future
from typing import Any

import msgspec

from protocol.blocking import BlockingClient
from protocol.errors import ProtocolError
from protocol.messages import AnyMessage
from protocol.status import FleetStatus, Inspect, Status, Supervise
from telemetry.record import Record, current_line
from telemetry.run_dir import RunDirectory

log = logging.getLogger(__name__)

ANSWER_S = 5.0


class Feed:
    """Asks a hub how its run goes.

    Args:
        client: connected to the hub.
        folder: the run's folder where it can be read. Step records come from its metrics.jsonl; where that is not, as
            on a machine of a cluster that shares no files with the learner, from the hub.
    """

    def __init__(self, client: BlockingClient, folder: RunDirectory | None) -> None:
        self._client = client
        self._folder = folder
        self._received: list[Record] = []
        self._num_records = 0
        self._answered_s = time.monotonic()
        self.failure = ""
        """Why the hub has given no answer the last time; empty if it has."""
        self.status: dict[str, Any] | None = None
        """The hub's last Status as plain data, without records; None before it has answered."""

    def ask(self, fleet: FleetStatus | None = None) -> Future[AnyMessage]:
        """Ask the hub, without waiting; give the future to `take` when it is done. The launcher gives its `fleet`."""
        after = None if self._has_file() else self._num_records
        question = Inspect(records_after=after) if fleet is None else Supervise(fleet=fleet, records_after=after)
        return self._client.submit(question, ANSWER_S)

    def take(self, answer: Future[AnyMessage]) -> bool:
        """Wait for the answer and keep it. False if there is none: then what is known stays."""
        try:
            status = answer.result()
            if not isinstance(status, Status):
                raise ProtocolError(f"got {type(status).__name__}, expected Status: is this the address of a hub?")
        except (ProtocolError, CancelledError) as error:
            self.failure = str(error) or type(error).__name__
            log.warning("the hub does not answer: %s", self.failure)
            return False
        self._answered_s, self.failure = time.monotonic(), ""
        self.status = msgspec.to_builtins(status)
        self._keep(self.status.pop("records"), status.num_records)
        return True

    def look(self, fleet: FleetStatus | None = None) -> bool:
        """Ask and wait, as `ask` and `take`."""
        return self.take(self.ask(fleet))

    def records(self) -> list[Record]:
        """The step records so far, one a step."""
        return self._folder.read_metrics() if self._folder is not None and self._has_file() else self._received

    def silent_s(self) -> float:
        """Seconds since the last answer, if the hub was asked in vain since; else 0."""
        return time.monotonic() - self._answered_s if self.failure else 0.0

    def _has_file(self) -> bool:
        return self._folder is not None and self._folder.metrics_path.exists()

    def _keep(self, records: list[Record], num_records: int) -> None:
        if num_records < self._num_records:
            # Another hub at the same address: it counts from the beginning.
            self._received, self._num_records = [], 0
        if records:
            self._received = current_line([*self._received, *records])
            self._num_records = num_records
