"""The buffer as a pure state machine: events in, results and pushes out.

    event                    who                what it may unblock
    lease                    an actor           -
    submit, give_back        an actor           pull; lease (a group filtered, failed or stale makes room)
    leaving                  an actor           lease (of the others, who share what there is)
    expire, client_gone      time, silence      lease
    pull                     the learner        -
    commit                   the learner        lease (room), the end of the run
    publish                  the learner        lease (fresher weights), pull (`alternate`: the next round)
    learner_gone             another learner    pull

It has no sockets, no clock and no threads; `now` is an argument. What it refuses (RefusedError) has changed nothing
except where the docstring says so. Every request may be repeated, and is answered as at first. After each event the
caller takes the transitions, stores them, and only then lets the answer leave.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from buffer.actor_side import ActorSide
from buffer.books import Books, Push
from buffer.config import BufferConfig
from buffer.learner_side import LearnerSide
from buffer.ledger import Ledger
from buffer.line import Line
from buffer.snapshot import MachineSnapshot, parse_snapshot
from buffer.store import Transition
from protocol.config import ScheduleConfig
from protocol.messages import WeightManifest
from protocol.version import Lineage, PolicyVersion


class Machine:
    """All decisions of the buffer. `actors` and `learner` take the events of either side.

    Args:
        config, schedule: what to do.
        batch_groups: B.
        num_prompts: prompts of the task.
        seed: of the ledger's order, and of the sampler that draws at random.
        state: saved by `snapshot`, to go on from; None begins anew. Raises LedgerError if it does not fit.
    """

    def __init__(
        self,
        config: BufferConfig,
        schedule: ScheduleConfig,
        batch_groups: int,
        num_prompts: int,
        seed: int = 0,
        state: Mapping[str, object] | None = None,
    ) -> None:
        self.ledger = Ledger(num_prompts, epochs=config.epochs, seed=seed, shuffle=config.shuffle)
        self._books = Books(config, schedule, batch_groups, self.ledger, seed)
        self.actors = ActorSide(self._books)
        self.learner = LearnerSide(self._books)
        if state is not None:
            self._restore(parse_snapshot(state))

    @property
    def version(self) -> PolicyVersion:
        """The committed version."""
        return self._books.line.version

    @property
    def lineage(self) -> Lineage:
        """Where its incarnations branched."""
        return self._books.line.lineage

    @property
    def manifest(self) -> WeightManifest | None:
        """The newest weights that can be fetched."""
        return self._books.manifest

    @property
    def draining(self) -> bool:
        """Whether no leases are given any more."""
        return self._books.draining

    @property
    def events(self) -> Counter[str]:
        """Counts of what happened."""
        return self._books.events

    def num_leases(self, actor: str) -> int:
        """Leases that this actor holds."""
        return self._books.leases.num_held(actor)

    def lags(self) -> Counter[int]:
        """Buffered groups by their lag to the version that trains next."""
        return self._books.shelf.count_lags(self._books.lag_of)

    def drain(self, reason: str) -> None:
        """End the run: see `Books.drain`."""
        self._books.drain(reason)

    def take_transitions(self) -> list[Transition]:
        """Transitions since the last call, to be stored before the answer leaves."""
        taken, self._books.transitions = self._books.transitions, []
        return taken

    def take_pushes(self) -> list[Push]:
        """Pushes since the last call, in order."""
        taken, self._books.pushes = self._books.pushes, []
        return taken

    def snapshot(self) -> dict[str, object]:
        """All that a resumed run needs, as plain data."""
        return MachineSnapshot(
            version=(self.version.incarnation, self.version.step),
            branch_steps=list(self.lineage.branch_steps),
            settled_step=self.learner.settled_step,
            events=dict(self.events),
            ledger=self.ledger.snapshot(),
        ).to_plain()

    def _restore(self, snapshot: MachineSnapshot) -> None:
        self.ledger.restore(snapshot.ledger)
        self._books.line = Line(PolicyVersion(*snapshot.version), Lineage(tuple(snapshot.branch_steps)))
        self._books.events.update(snapshot.events)
        self._books.rounds.begin(self.version.step)
        self.learner.restore(snapshot.settled_step)
