"""The learner's side of the machine: batches, versions, checkpoints."""

from __future__ import annotations

from buffer.books import Books, Outstanding, Push
from buffer.shelf import ShelvedGroup
from buffer.states import Event, State
from buffer.tally import Tally
from protocol.errors import RefusedError
from protocol.messages import Batch, WeightManifest
from protocol.version import PolicyVersion


class LearnerSide:
    """Events that come from the learner, or from its successor."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._last_commit: tuple[str, PolicyVersion] | None = None
        self._trained: dict[int, list[int]] = {}
        self.settled_step = 0

    def restore(self, settled_step: int) -> None:
        """Find what is trained and not settled in a restored ledger."""
        self.settled_step = settled_step
        ledger = self._books.ledger
        for order in ledger.orders_in(State.TRAINED):
            self._trained.setdefault(ledger.entry(order).step or 0, []).append(order)

    def publish(self, manifest: WeightManifest) -> None:
        """New weights can be fetched; a newer incarnation begins its branch here. Refuses "wrong_version"."""
        books = self._books
        version = manifest.version
        self._enter_incarnation(version)
        if version.incarnation != books.line.version.incarnation or version > books.next_version:
            raise RefusedError(
                "wrong_version", f"weights of {version}, but the newest possible are {books.next_version}"
            )
        if books.manifest is not None and version <= books.manifest.version:
            return
        books.manifest = manifest
        # Weights first: an actor that wakes up must know at once that it has to load them.
        books.pushes.append(Push(None, manifest))
        books.rounds.begin(version.step)
        # A learner that resumes may pull before its weights are announced.
        books.rounds.served(books.next_version.step - version.step)
        books.update_rounds()

    def pull(self, version: PolicyVersion) -> Batch:
        """The batch that the update from `version` trains on. A repeated pull gets the same batch.

        Refuses "empty" (not yet), "exhausted" (no batch will come any more; where the epochs have ended, what was left
        of the last one is dropped), "wrong_version".
        """
        books = self._books
        self._enter_incarnation(version)
        for outstanding in books.outstanding:
            if outstanding.batch.version == version:
                books.events["pulls_repeated"] += 1
                return outstanding.batch
        self._require_pullable(version)
        books.evict_stale()
        if books.num_possible() < books.batch_groups:
            self._end_epochs()
            raise RefusedError("exhausted", "too few prompts are left to fill a batch; buffer.epochs ends the run here")
        books.update_rounds()
        may_pull = books.rounds.may_pull and books.holds_enough
        chosen = books.shelf.take_batch(version, books.batch_groups, books.lag_of) if may_pull else None
        if chosen is None:
            raise RefusedError("empty", f"{len(books.shelf)} groups are buffered, a batch is {books.batch_groups}")
        return self._serve(version, chosen)

    def commit(self, batch_id: str, version: PolicyVersion) -> None:
        """The optimizer step on a batch is done and led to `version`. Refuses "unknown_batch", "wrong_version"."""
        books = self._books
        if self._last_commit == (batch_id, version):
            books.events["commits_repeated"] += 1
            return
        if not books.outstanding or books.outstanding[0].batch.batch_id != batch_id:
            raise RefusedError("unknown_batch", f"batch {batch_id} is not the oldest of those pulled and not committed")
        if version != books.line.after(1):
            raise RefusedError("wrong_version", f"batch {batch_id} leads to {books.line.after(1)}, got {version}")
        committed = books.outstanding.pop(0)
        for shelved in committed.shelved:
            books.apply(shelved.order, Event.COMMIT, step=version.step)
        self._trained[version.step] = [shelved.order for shelved in committed.shelved]
        self._last_commit = (batch_id, version)
        books.line.version = version
        books.events["batches_committed"] += 1
        books.evict_stale()
        books.update_rounds()
        if version.step >= books.schedule.steps:
            books.drain("schedule.steps is reached")

    def settle(self, version: PolicyVersion) -> None:
        """A checkpoint on disk holds `version`. Refuses "wrong_version"."""
        if version.incarnation != self._books.line.version.incarnation or version > self._books.line.version:
            raise RefusedError(
                "wrong_version", f"a checkpoint of {version}; the committed version is {self._books.line.version}"
            )
        self._settle_until(version.step)

    def gone(self) -> None:
        """The learner died: what it had pulled is buffered again."""
        self._take_back()
        self._books.update_rounds()

    def _take_back(self) -> None:
        books = self._books
        books.rounds.served(-len(books.outstanding))
        for outstanding in books.outstanding:
            for shelved in outstanding.shelved:
                books.apply(shelved.order, Event.REWIND, "learner gone")
                books.shelf.put(shelved)
        books.outstanding.clear()
        books.evict_stale()

    def _enter_incarnation(self, version: PolicyVersion) -> None:
        """A learner that begins a newer incarnation took with it what was not in the checkpoint it resumed."""
        books = self._books
        if not books.line.enter(version, self.settled_step):
            return
        self._settle_until(version.step)
        for orders in self._trained.values():
            for order in orders:
                books.apply(order, Event.REWIND, "learner gone", count="groups_rewound")
        self._trained.clear()
        books.draining = False
        self._take_back()
        books.rounds.begin(version.step)

    def _settle_until(self, step: int) -> None:
        self.settled_step = max(self.settled_step, step)
        for trained in [trained for trained in self._trained if trained <= step]:
            for order in self._trained.pop(trained):
                self._books.apply(order, Event.SETTLE)

    def _require_pullable(self, version: PolicyVersion) -> None:
        books = self._books
        if version.step >= books.schedule.steps:
            raise RefusedError("exhausted", f"schedule.steps is {books.schedule.steps}, and {version} has done them")
        if version != books.next_version:
            raise RefusedError("wrong_version", f"the next batch is for version {books.next_version}, got {version}")
        if books.draining:
            raise RefusedError("exhausted", "the run is being stopped")

    def _end_epochs(self) -> None:
        books = self._books
        books.leases.void_all()
        books.shelf.take_all()
        books.ledger.open_all()
        for order in books.ledger.orders_in(State.READY, State.LEASED, State.BUFFERED):
            books.apply(order, Event.DROP, "end of epochs", count="groups_dropped_end")

    def _serve(self, version: PolicyVersion, chosen: list[tuple[ShelvedGroup, int]]) -> Batch:
        books = self._books
        groups = [shelved.group for shelved, _ in chosen]
        books.events["batches_pulled"] += 1
        batch = Batch(
            batch_id=f"{version}/{books.events['batches_pulled']}",
            version=version,
            groups=groups,
            lags=[lag for _, lag in chosen],
            groups_filtered=books.tally.groups_filtered,
            generated_tokens=books.tally.generated_tokens,
            reward_mean=books.tally.reward_mean(fallback=groups),
        )
        books.tally = Tally()
        for shelved, _ in chosen:
            books.apply(shelved.order, Event.PULL)
        books.outstanding.append(Outstanding(batch, [shelved for shelved, _ in chosen]))
        books.rounds.served()
        books.update_rounds()
        return batch
