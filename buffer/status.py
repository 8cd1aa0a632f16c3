"""What the hub tells those who watch: its machine, its clients, what happened lately, and the learner's records."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from buffer.clients import ClientRecord, Clients
from buffer.evaluations import EvaluationDesk
from buffer.journal import Journal
from buffer.machine import Machine
from buffer.record_book import RecordBook
from buffer.states import Event
from buffer.steering import Steering
from buffer.store import Transition
from protocol.messages import Hello
from protocol.status import RunFacts, Status


class StatusDesk:
    """Answers Inspect, and keeps what only those who ask need.

    Args:
        facts: what does not change.
        evaluations: which weights are evaluated, and what came of it.
        clock: the hub's.
    """

    def __init__(self, facts: RunFacts, evaluations: EvaluationDesk, clock: Callable[[], float]) -> None:
        self.journal = Journal()
        self.records = RecordBook()
        self.steering = Steering()
        self.evaluations = evaluations
        self._facts = facts
        self._clock = clock
        self._begun_s = self._moved_s = clock()
        self._committed_s: float | None = None

    def note_transitions(self, transitions: Sequence[Transition]) -> None:
        """The ledger changed."""
        self._moved_s = self._clock()
        if any(transition.event is Event.COMMIT for transition in transitions):
            self._committed_s = self._moved_s
        self.journal.tell(transitions)

    def note_hello(self, message: Hello, displaced: Sequence[ClientRecord]) -> None:
        """A process that was not known said hello."""
        if message.role != "observer":
            again = ", in the place of a process that is gone" if displaced else ""
            self.journal.note(f"{message.name} joined" + (f" from {message.host}" if message.host else "") + again)

    def note_silence(self, record: ClientRecord, silent_s: float) -> None:
        """An actor is given up."""
        leases = ": its leases return" if record.role == "actor" else ""
        self.journal.note(f"{record.name} is silent for {silent_s:.0f} s{leases}", is_warning=True)

    def status(self, machine: Machine, clients: Clients, records_after: int | None, metrics_address: str) -> Status:
        """The answer to Inspect."""
        now = self._clock()
        return Status(
            version=machine.version,
            lineage=machine.lineage,
            published=machine.manifest.version if machine.manifest else None,
            ledger={state.value: count for state, count in machine.ledger.counts.items()},
            opened=machine.ledger.opened,
            total=machine.ledger.total,
            lags={str(lag): count for lag, count in sorted(machine.lags().items())},
            events=dict(machine.events),
            clients=[x.status(machine.num_leases(x.name), now) for x in clients.present()],
            draining=machine.draining,
            fleet=self.steering.fleet,
            order=self.steering.order,
            metrics_address=metrics_address,
            run=self._facts,
            uptime_s=now - self._begun_s,
            idle_s=now - self._moved_s,
            since_commit_s=None if self._committed_s is None else now - self._committed_s,
            log=self.journal.lines,
            records=[] if records_after is None else self.records.after(records_after),
            num_records=self.records.count,
            evaluations=self.evaluations.recent,
            evaluation_due=self.evaluations.due_version,
        )
