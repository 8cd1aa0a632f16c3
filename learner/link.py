"""Rank 0's link to the hub: what the learner asks of it, with the next batch fetched while this one trains."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from protocol.blocking import BlockingClient
from protocol.errors import PeerTimeoutError, ProtocolError, RefusedError
from protocol.messages import (
    AnyMessage,
    Batch,
    Commit,
    EvaluateLast,
    Heartbeat,
    Hello,
    LedgerState,
    Pull,
    Records,
    Settle,
    Snapshot,
    WeightManifest,
)
from protocol.status import Inspect, Status
from protocol.version import PolicyVersion

log = logging.getLogger(__name__)

PULL_WAIT_S = 10.0
ANSWER_TIMEOUT_S = 60.0
ATTEMPTS = 3
BEAT_S = 2.0
RECORDS_AT_ONCE = 50

AnswerT = TypeVar("AnswerT", bound=AnyMessage)


class HubLink:
    """Requests to the hub, and a thread that tells it every few seconds what the learner waits for.

    Args:
        address: where the hub listens.
        name: the learner's name.
        metrics_address: where the learner serves its metrics; empty if it does not.
    """

    def __init__(self, address: str, name: str, metrics_address: str = "") -> None:
        self._name = name
        self._client = BlockingClient(address)
        self._pull: Future[AnyMessage] | None = None
        self._pulled_version: PolicyVersion | None = None
        self._closing = threading.Event()
        self._status: Status | None = None
        self._first_ready: float | None = None
        self.waiting_for = "start"
        """What the learner waits for, told to the hub with every beat; empty while it works."""
        hello = Hello(
            role="learner", name=name, pid=os.getpid(), host=socket.gethostname(), metrics_address=metrics_address
        )
        self._ask(hello)
        self._beats = threading.Thread(target=self._beat, name="rapid-beat", daemon=True)
        self._beats.start()

    # --- batches ------------------------------------------------------------------------------------

    def prefetch(self, version: PolicyVersion) -> None:
        """Ask for the batch that the update from `version` will train on."""
        self._pulled_version = version
        self._pull = self._client.submit(Pull(version=version, wait_s=PULL_WAIT_S), PULL_WAIT_S + ANSWER_TIMEOUT_S)

    def poll_batch(self, timeout_s: float) -> Batch | None:
        """The batch asked for by `prefetch`, or None if it is not there after `timeout_s`.

        Raises RefusedError("exhausted") when no batch will come any more, and PeerTimeoutError when the hub is gone.
        """
        if self._pull is None or self._pulled_version is None:
            raise RuntimeError("poll_batch before prefetch")
        try:
            answer = self._pull.result(timeout_s)
        except RefusedError as error:
            if error.code != "empty":
                raise
            self.prefetch(self._pulled_version)
            return None
        except FutureTimeoutError:
            return None
        self._pull = None
        return expect(answer, Batch)

    def hand_over(self, records: list[dict[str, Any]]) -> None:
        """Give the hub lines of metrics.jsonl, for those who watch; without waiting, and without a second try."""
        for start in range(0, len(records), RECORDS_AT_ONCE):
            message = Records(records=records[start : start + RECORDS_AT_ONCE])
            self._client.submit(message, ANSWER_TIMEOUT_S).add_done_callback(_log_failure)

    def commit(self, batch_id: str, version: PolicyVersion) -> None:
        """The optimizer step on this batch is done and led to `version`."""
        self._ask(Commit(batch_id=batch_id, version=version))

    # --- weights and checkpoints --------------------------------------------------------------------

    def announce(self, manifest: WeightManifest) -> None:
        """New weights can be fetched."""
        self._ask(manifest)

    def snapshot(self) -> dict[str, object]:
        """The hub's ledger at this moment."""
        return expect(self._ask(Snapshot()), LedgerState).state

    def settle(self, version: PolicyVersion) -> None:
        """A checkpoint on disk holds `version`."""
        self._ask(Settle(version=version))

    def evaluate_last(self, version: PolicyVersion) -> None:
        """These weights, which are published, are the run's last."""
        self._ask(EvaluateLast(version=version))

    # --- what the hub knows -------------------------------------------------------------------------

    def since_first_actor_s(self) -> float:
        """Seconds since the first actor was seen with weights loaded; 0 before that."""
        return 0.0 if self._first_ready is None else time.monotonic() - self._first_ready

    def num_actors(self) -> int:
        """Actors connected when the hub was last asked."""
        return 0 if self._status is None else sum(client.role == "actor" for client in self._status.clients)

    def inspect(self) -> Status:
        """Ask the hub what it knows."""
        status = expect(self._ask(Inspect()), Status)
        ready = any(client.role == "actor" and client.version is not None for client in status.clients)
        if ready and self._first_ready is None:
            self._first_ready = time.monotonic()
        self._status = status
        return status

    def close(self) -> None:
        """End the beats and close the socket."""
        self._closing.set()
        self._beats.join()
        self._client.close()

    def _beat(self) -> None:
        while not self._closing.wait(BEAT_S if self._first_ready is not None else BEAT_S / 4):
            try:
                self._client.request(Heartbeat(name=self._name, waiting_for=self.waiting_for), BEAT_S * 5)
                self.inspect()
            except ProtocolError as error:
                log.warning("heartbeat: %s", error)

    def _ask(self, message: AnyMessage) -> AnyMessage:
        # The hub answers a repeated request as it answered the first, so repeating is safe.
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._client.request(message, ANSWER_TIMEOUT_S)
            except PeerTimeoutError as error:
                if attempt == ATTEMPTS:
                    raise
                log.warning("%s; attempt %d of %d", error, attempt + 1, ATTEMPTS)
        raise AssertionError("not reached")


def expect(message: AnyMessage, kind: type[AnswerT]) -> AnswerT:
    """The message, if it is of that kind. Raises ProtocolError otherwise."""
    if not isinstance(message, kind):
        raise ProtocolError(f"got {type(message).__name__}, expected {kind.__name__}")
    return message


def _log_failure(sent: Future[AnyMessage]) -> None:
    if not sent.cancelled() and sent.exception() is not None:
        log.warning("the hub did not take the step's record: %s", sent.exception())
