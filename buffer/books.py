"""The books of the buffer: what the machine's two sides share, and the steps that both of them take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from buffer.config import BufferConfig, StalePolicy
from buffer.leases import ActiveLease, LeaseBook
from buffer.ledger import Ledger
from buffer.line import Line
from buffer.rounds import Rounds
from buffer.shelf import Shelf, ShelvedGroup
from buffer.states import Event, State
from buffer.store import Transition
from buffer.tally import Tally
from protocol.config import ScheduleConfig
from protocol.group import Group
from protocol.messages import AnyMessage, Batch, Drain, Phase, WeightManifest
from protocol.version import PolicyVersion

_ENDLESS = 2**62


@dataclass(frozen=True, slots=True)
class Push:
    """A message to be sent unasked: to the client of this name, or to every actor."""

    name: str | None
    message: AnyMessage


@dataclass(frozen=True, slots=True)
class Outstanding:
    """A batch pulled and not committed."""

    batch: Batch
    shelved: list[ShelvedGroup]


class Books:
    """State of the machine. Arguments as of `Machine`."""

    def __init__(
        self, config: BufferConfig, schedule: ScheduleConfig, batch_groups: int, ledger: Ledger, seed: int
    ) -> None:
        self.config = config
        self.schedule = schedule
        self.batch_groups = batch_groups
        self.ledger = ledger
        self.line = Line()
        self.manifest: WeightManifest | None = None
        self.draining = False
        self.leases = LeaseBook()
        self.rounds = Rounds(schedule, batch_groups)
        self.shelf = Shelf(config, schedule.max_staleness, seed)
        self.outstanding: list[Outstanding] = []
        self.tally = Tally()
        self.events: Counter[str] = Counter()
        self.transitions: list[Transition] = []
        self.pushes: list[Push] = []

    def count(self, state: State) -> int:
        """Entries in this state."""
        return self.ledger.counts[state]

    def lag_of(self, versions: Iterable[PolicyVersion]) -> int:
        """The largest lag of these versions to the version that trains next."""
        return self.line.lag(versions, self.next_version)

    def apply(
        self,
        order: int,
        event: Event,
        reason: str = "",
        *,
        count: str = "",
        step: int | None = None,
        group: Group | None = None,
    ) -> None:
        """Let something happen to an entry, write it down, and count it under `count`."""
        self.transitions.append(self.ledger.apply(order, event, step=step, reason=reason, group=group))
        if count:
            self.events[count] += 1

    def release(self, leases: list[ActiveLease], reason: str, *, count: str) -> None:
        """Leases end without fault: their entries are ready again."""
        for lease in leases:
            self.apply(lease.order, Event.RELEASE, reason, count=count)
        self.update_rounds()

    def discard_stale(self, order: int) -> None:
        """An entry whose tokens are beyond the bound: by policy it is generated again or given up."""
        if self.config.stale_policy is StalePolicy.REQUEUE:
            self.apply(order, Event.STALE, "lag beyond the bound", count="groups_requeued_stale")
        else:
            self.apply(order, Event.DROP, "lag beyond the bound", count="groups_dropped_stale")

    def evict_stale(self) -> None:
        """Discard what waits and can never be trained on: lags only grow."""
        for shelved in self.shelf.take_stale(self.lag_of):
            self.discard_stale(shelved.order)

    def num_possible(self) -> int:
        """Groups that are buffered or may yet come."""
        unopened = self.ledger.num_unopened()
        if unopened is None:
            return _ENDLESS
        return unopened + self.count(State.READY) + self.count(State.LEASED) + self.count(State.BUFFERED)

    def update_rounds(self) -> None:
        """Let `alternate` change turns if it is time, and tell the actors."""
        self.rounds.update(len(self.shelf), self.num_possible())
        if self.rounds.take_change():
            self.pushes.append(Push(None, Phase(generating=self.rounds.generating)))

    @property
    def batches_left(self) -> int:
        """Batches of the run that are not committed."""
        return self.schedule.steps - self.line.version.step

    @property
    def holds_enough(self) -> bool:
        """Whether the buffer is as full as the admission rule lets it become, if the schedule asks for that."""
        if not self.schedule.hold_staleness:
            return True
        if self.outstanding:
            # Pulled ahead, a batch would not wait for what the weights between generate: the next one were too fresh.
            return False
        batches = min(self.schedule.max_staleness + 1, self.batches_left)
        # At the end of the epochs no more will come than are there.
        return len(self.shelf) >= min(batches, self.num_possible() // self.batch_groups) * self.batch_groups

    @property
    def next_version(self) -> PolicyVersion:
        """The version that the next new batch will train."""
        return self.line.after(len(self.outstanding))

    def drain(self, reason: str) -> None:
        """No more leases. What is leased, buffered or pulled is ready again, for a run that goes on later."""
        self.draining = True
        self.release(self.leases.void_all(), reason, count="leases_drained")
        pulled = [shelved for outstanding in self.outstanding for shelved in outstanding.shelved]
        for shelved in [*self.shelf.take_all(), *pulled]:
            self.apply(shelved.order, Event.RELEASE, reason, count="groups_drained")
        self.outstanding.clear()
        self.pushes.append(Push(None, Drain(reason=reason)))
