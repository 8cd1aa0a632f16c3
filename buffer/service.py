"""The hub: a thin asyncio shell around the buffer's state machine.

    request ──► Machine ──► transitions ──► Store ──► answer leaves
                   │
                   └──► pushes (weights, phase, drain) ──► queue ──► actors

Lease and Pull are long polls: their handlers wait until anything changes, then ask the machine again. A timer
expires leases, notices actors that fell silent, and writes `ledger/state.json`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from buffer.bell import Bell
from buffer.books import Push
from buffer.clients import ClientRecord, Clients
from buffer.config import BufferConfig
from buffer.evaluations import EvaluationDesk
from buffer.gauges import HubGauges
from buffer.machine import Machine
from buffer.states import Event
from buffer.status import StatusDesk
from buffer.store import MemoryStore, Store
from buffer.summary import write_state
from protocol.config import ScheduleConfig
from protocol.endpoint import Server
from protocol.errors import RefusedError
from protocol.messages import (
    PROTOCOL_VERSION,
    Acknowledge,
    AnyMessage,
    Batch,
    Commit,
    Evaluated,
    EvaluateLast,
    Goodbye,
    Heartbeat,
    Hello,
    Lease,
    LedgerState,
    Pull,
    Records,
    Return,
    Settle,
    Snapshot,
    Submit,
    WeightManifest,
    Work,
)
from protocol.status import Inspect, Note, RunFacts, Scale, Status, Supervise
from telemetry.exporter import Exporter

log = logging.getLogger(__name__)

T = TypeVar("T")

_TICK_S = 0.5
_LONGEST_WAIT_S = 60.0
_FLUSH_S = 1.0
_TELL_AGAIN_S = 30.0
"""An actor that has had this long and still reports old weights may never have heard of the new ones."""


class Hub:
    """The one address that everybody knows.

    Args:
        config, schedule: what to do.
        batch_groups: B.
        num_prompts: prompts of the task.
        seed: of the ledger's order and of the sampler.
        address: where to listen, for example "tcp://127.0.0.1:*".
        state: what `LedgerState` carried into a checkpoint; None begins a new ledger.
        run_dir: the run's folder, for `ledger/state.json`; None writes nothing.
        evaluate_every: `task.eval.every`, in optimizer steps; None has no evaluations while the run goes on.
        model: the model's name, for those who watch.
        store: where transitions are kept; None keeps them in memory.
        exporter: of the hub's metrics; None exports nothing.
        clock: seconds, never going back.

    Raises:
        AddressError: the address is taken or malformed.
        LedgerError: the state is damaged or of another run.
    """

    def __init__(
        self,
        config: BufferConfig,
        schedule: ScheduleConfig,
        batch_groups: int,
        num_prompts: int,
        seed: int,
        address: str,
        state: dict[str, Any] | None = None,
        run_dir: Path | None = None,
        *,
        evaluate_every: int | None = None,
        model: str = "",
        store: Store | None = None,
        exporter: Exporter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.machine = Machine(config, schedule, batch_groups, num_prompts, seed, state)
        self._config = config
        self._run_dir = run_dir
        self._store = store or MemoryStore()
        self._clock = clock
        self._clients = Clients()
        self._gauges = None if exporter is None else HubGauges(exporter, schedule)
        self._bell = Bell(clock)
        self._pushes: asyncio.Queue[Push] = asyncio.Queue()
        self._written_s = clock()
        name = run_dir.name if run_dir is not None else ""
        evaluations = EvaluationDesk(evaluate_every, schedule.broadcast_every, run_dir)
        self._desk = StatusDesk(_facts(name, model, schedule, batch_groups), evaluations, clock)
        self._server = Server(address, self._handle)
        self._handlers: dict[type, Callable[[bytes, Any], Awaitable[AnyMessage]]] = {
            Hello: self._hello,
            Heartbeat: self._heartbeat,
            Inspect: self._inspect,
            Supervise: self._supervise,
            Scale: self._scale,
            Note: self._note,
            Lease: self._lease,
            Submit: self._submit,
            Return: self._return,
            Goodbye: self._goodbye,
            Pull: self._pull,
            Commit: self._commit,
            Records: self._keep_records,
            Snapshot: self._snapshot,
            Settle: self._settle,
            WeightManifest: self._publish,
            Evaluated: self._evaluated,
            EvaluateLast: self._evaluate_last,
        }

    @property
    def address(self) -> str:
        """Where clients connect."""
        return self._server.address

    async def serve(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then drain, write the ledger's state, and close."""
        self._write_state()
        loops = [asyncio.create_task(loop()) for loop in (self._server.serve, self._send_pushes, self._tick_forever)]
        stopped = asyncio.create_task(stop.wait())
        try:
            done, _ = await asyncio.wait([*loops, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            self._drain("the hub is stopping")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_S):
                    await self._flush()
        finally:
            for task in (*loops, stopped):
                task.cancel()
            await asyncio.gather(*loops, stopped, return_exceptions=True)
            self._write_state()
            self._store.close()
            self._server.close()

    async def drain(self, reason: str) -> None:
        """Grant no more leases, and ask the actors to hand back what they hold."""
        self._drain(reason)

    def _drain(self, reason: str) -> None:
        if not self.machine.draining:
            self._desk.journal.note(f"no more leases are given: {reason}")
        self._step(self.machine.drain, reason)

    def tick(self, now: float) -> None:
        """What time brings: expired leases, silent actors."""
        for record in self._clients.silent_actors(now, self._config.client_timeout_s):
            log.warning("%s is silent for %.0f s: its leases return", record.name, now - record.seen_s)
            self._desk.note_silence(record, now - record.seen_s)
            self._step(self.machine.actors.gone, record.name)
        self._step(self.machine.actors.expire, now)
        if self._gauges is not None:
            self._gauges.update(self.machine, self._clients.present())

    # --- requests -----------------------------------------------------------------------------------

    async def _handle(self, peer: bytes, message: AnyMessage) -> AnyMessage:
        self._clients.heard(peer, self._clock())
        handler = self._handlers.get(type(message))
        if handler is None:
            raise RefusedError("unexpected", f"the hub does not answer {type(message).__name__}")
        return await handler(peer, message)

    async def _hello(self, peer: bytes, message: Hello) -> Acknowledge:
        if message.protocol != PROTOCOL_VERSION:
            raise RefusedError(
                "protocol", f"{message.name} speaks protocol {message.protocol}, the hub {PROTOCOL_VERSION}"
            )
        is_new = not self._clients.knows(message)
        displaced = self._clients.hello(peer, message, self._clock())
        if is_new:
            self._desk.note_hello(message, displaced)
        for record in displaced:
            log.info("%s %s takes the place of a process that is gone", message.role, message.name)
            self._step(self.machine.learner.gone if record.role == "learner" else self._actor_gone(record.name))
        if message.role == "actor":
            self._step(self.machine.actors.welcome, message.name)
        elif message.role == "evaluator" and self._desk.evaluations.due is not None:
            self._pushes.put_nowait(Push(message.name, self._desk.evaluations.due))
        return Acknowledge()

    def _actor_gone(self, name: str) -> Callable[[], None]:
        return lambda: self.machine.actors.gone(name)

    def _catch_up(self, record: ClientRecord) -> None:
        """Tell an actor everything anew if a push was lost: with its connection, or on the way."""
        newest = self.machine.manifest
        if record.role != "actor" or newest is None or record.version == newest.version:
            return
        if self._clock() - record.told_s > _TELL_AGAIN_S:
            self._step(self.machine.actors.welcome, record.name)

    async def _heartbeat(self, peer: bytes, message: Heartbeat) -> Acknowledge:
        now = self._clock()
        record, has_new_weights = self._clients.beat(peer, message, now)
        self._catch_up(record)
        if record.role == "actor":
            self.machine.actors.renew(message.name, message.leases, now)
        if message.is_leaving and not record.is_leaving:
            record.is_leaving = True
            self._step(self.machine.actors.leaving, message.name)
            self._bell.ring()
        if has_new_weights:
            self._bell.ring()
        return Acknowledge()

    async def _inspect(self, peer: bytes, message: Inspect) -> Status:
        return self._status(message.records_after)

    def _status(self, records_after: int | None) -> Status:
        return self._desk.status(
            self.machine,
            self._clients,
            records_after,
            metrics_address="" if self._gauges is None else self._gauges.address,
        )

    async def _note(self, peer: bytes, message: Note) -> Acknowledge:
        self._desk.journal.note(message.text, is_warning=True)
        return Acknowledge()

    async def _keep_records(self, peer: bytes, message: Records) -> Acknowledge:
        self._desk.records.add(message.records)
        return Acknowledge()

    async def _supervise(self, peer: bytes, message: Supervise) -> Status:
        self._desk.steering.account(message.fleet, self._clock())
        return self._status(message.records_after)

    async def _scale(self, peer: bytes, message: Scale) -> Acknowledge:
        self._desk.steering.ask(message.actors, self._clock(), force=message.force)
        return Acknowledge()

    async def _lease(self, peer: bytes, message: Lease) -> Work:
        record = self._clients.named(message.name, peer, self._clock())
        self._catch_up(record)
        record.load(message.version)
        record.lease_requests += 1
        request, deadline = record.lease_requests, self._deadline(message.wait_s)
        while True:
            ring = self._bell.listen()
            if record.gone or record.is_leaving or record.lease_requests != request:
                return Work(items=[])
            version = record.version or message.version
            lease = (message.name, message.max_groups, version, self._clock(), message.lends)
            items = self._step(self.machine.actors.lease, *lease)
            if items or self.machine.draining or not await self._bell.wait(ring, deadline):
                return Work(items=items)

    async def _submit(self, peer: bytes, message: Submit) -> Acknowledge:
        self._step(self.machine.actors.submit, message.lease_id, message.group)
        return Acknowledge()

    async def _return(self, peer: bytes, message: Return) -> Acknowledge:
        self._step(self.machine.actors.give_back, message.lease_id, message.failed, message.reason)
        return Acknowledge()

    async def _goodbye(self, peer: bytes, message: Goodbye) -> Acknowledge:
        self._clients.leave(message.name)
        self._desk.journal.note(f"{message.name} left")
        self._step(self.machine.actors.gone, message.name)
        self._bell.ring()
        return Acknowledge()

    async def _pull(self, peer: bytes, message: Pull) -> Batch:
        begin, deadline = self._clock(), self._deadline(message.wait_s)
        while True:
            ring = self._bell.listen()
            try:
                batch = self._step(self.machine.learner.pull, message.version)
                if self._gauges is not None:
                    self._gauges.observe_batch(batch, self._clock() - begin)
                return batch
            except RefusedError as refusal:
                if refusal.code != "empty" or not await self._bell.wait(ring, deadline):
                    raise

    async def _commit(self, peer: bytes, message: Commit) -> Acknowledge:
        self._step(self.machine.learner.commit, message.batch_id, message.version)
        return Acknowledge()

    async def _snapshot(self, peer: bytes, message: Snapshot) -> LedgerState:
        return LedgerState(state=self.machine.snapshot())

    async def _settle(self, peer: bytes, message: Settle) -> Acknowledge:
        self._step(self.machine.learner.settle, message.version)
        self._desk.journal.note(f"a checkpoint of step {message.version.step} is on the disk", topic="checkpoint")
        return Acknowledge()

    async def _publish(self, peer: bytes, message: WeightManifest) -> Acknowledge:
        self._step(self.machine.learner.publish, message)
        if self._desk.evaluations.publish(message):
            self._push_due()
        return Acknowledge()

    async def _evaluate_last(self, peer: bytes, message: EvaluateLast) -> Acknowledge:
        if self._desk.evaluations.ask_last(self.machine.manifest, message.version):
            self._push_due()
        return Acknowledge()

    async def _evaluated(self, peer: bytes, message: Evaluated) -> Acknowledge:
        text = self._desk.evaluations.finish(message, self._desk.records.after(0))
        if text is not None:
            self._desk.journal.note(text, is_warning=True)
        return Acknowledge()

    def _push_due(self) -> None:
        due = self._desk.evaluations.due
        assert due is not None
        for record in self._clients.present():
            if record.role == "evaluator":
                self._pushes.put_nowait(Push(record.name, due))

    # --- the shell ----------------------------------------------------------------------------------

    def _step(self, event: Callable[..., T], *arguments: Any) -> T:
        """Let the machine handle an event; store what it did before anybody hears of it."""
        try:
            return event(*arguments)
        finally:
            transitions = self.machine.take_transitions()
            if transitions:
                self._store.append(transitions)
                self._desk.note_transitions(transitions)
            for buried in (x for x in transitions if x.event is Event.BURY):
                log.warning(
                    "%s failed %d times and is a dead letter: %s", buried.entry_id, buried.failures, buried.reason
                )
            pushes = self.machine.take_pushes()
            for push in pushes:
                self._pushes.put_nowait(push)
            if transitions or pushes:
                self._bell.ring()

    def _deadline(self, wait_s: float) -> float:
        return self._clock() + min(wait_s, _LONGEST_WAIT_S)

    async def _send_pushes(self) -> None:
        while True:
            push = await self._pushes.get()
            for record in self._clients.addressees(push.name):
                sent = await self._server.push(record.peer, push.message)
                record.told_s = self._clock() if sent else -math.inf
            self._pushes.task_done()

    async def _flush(self) -> None:
        """Let answers and pushes under way leave."""
        await self._pushes.join()
        await self._server.finish()

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            now = self._clock()
            self.tick(now)
            if now - self._written_s >= self._config.state_interval_s:
                self._write_state()

    def _write_state(self) -> None:
        self._written_s = self._clock()
        if self._run_dir is None:
            return
        try:
            write_state(self._run_dir, self.machine.snapshot())
        except OSError as error:
            # The file is for people; a full disk must not end the run.
            log.error("the ledger's state cannot be written: %s", error)


def _facts(name: str, model: str, schedule: ScheduleConfig, batch_groups: int) -> RunFacts:
    return RunFacts(
        name=name,
        model=model,
        mode=schedule.mode.value,
        total_steps=schedule.steps,
        max_staleness=schedule.max_staleness,
        batch_groups=batch_groups,
    )
