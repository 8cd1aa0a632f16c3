"""The actors' side of the machine: leases, and what becomes of them."""

from __future__ import annotations

import math
from collections.abc import Iterable

from buffer.admission import capacity, grantable
from buffer.books import Books, Push
from buffer.leases import ActiveLease
from buffer.shelf import ShelvedGroup
from buffer.states import Event, State
from protocol.errors import RefusedError
from protocol.group import Group
from protocol.messages import Drain, Phase, WorkItem
from protocol.version import PolicyVersion

_ENDLESS = 2**62
_SHARE_DECAY = 0.05
"""Weight of the newest group in the share of groups with signal: twenty groups are remembered."""
_LEAST_SHARE = 0.2


class ActorSide:
    """Events that come from actors, or from their silence."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._at_work: set[str] = set()
        self._signal_share = 1.0
        """Of the groups submitted lately, those that were not filtered."""

    def welcome(self, name: str) -> None:
        """An actor said hello: push what it needs to begin."""
        books = self._books
        if books.manifest is not None:
            books.pushes.append(Push(name, books.manifest))
        if books.rounds.has_turns:
            books.pushes.append(Push(name, Phase(generating=books.rounds.generating)))
        if books.draining:
            books.pushes.append(Push(name, Drain(reason="the run is over")))

    def lease(
        self, actor: str, max_groups: int, version: PolicyVersion, now: float, lends: bool = False
    ) -> list[WorkItem]:
        """Grant up to `max_groups` entries, perhaps none. Refuses "unknown_version".

        Whoever `lends` its cores, or takes turns with the learner, gets no more than `_worthwhile` says.
        """
        books = self._books
        books.line.require_known([version], books.next_version)
        self._at_work.add(actor)
        if books.draining or not books.rounds.may_lease:
            return []
        room = self.capacity(version) - books.count(State.BUFFERED) - books.count(State.PULLED)
        room = min(room, self._worthwhile(version, lends))
        held = books.leases.num_held(actor)
        allowed = min(max_groups, grantable(room, books.count(State.LEASED), held, len(self._at_work)))
        items: list[WorkItem] = []
        while len(items) < allowed and (order := books.ledger.next_ready()) is not None:
            items.append(self._grant(order, actor, now))
        return items

    def _worthwhile(self, version: PolicyVersion, lends: bool) -> int:
        """Groups that are worth being leased at once, as far as the bound admits them.

        Small numbers of sequences take an engine nearly as long as large ones. So where what is generated too early or
        in vain has a cost, there are as many as the learner needs if as many are filtered as lately: what is filtered
        is made up for beforehand, and not one by one. In turns that is what is missing of the round; what is under
        way when the round is complete sleeps with the engine, and is of the next one. On cores that the learner could
        use it is this batch and the next. What is begun later is fresher; so nothing is begun with weights that are
        just being replaced, except on such cores if the learner would wait. Several actors share the number.
        """
        books = self._books
        ready = books.count(State.BUFFERED)
        if books.rounds.has_turns:
            missing, is_provided = books.rounds.left * books.batch_groups - ready, True
        elif lends and not books.schedule.hold_staleness:
            ready += books.count(State.PULLED)
            missing, is_provided = 2 * books.batch_groups - ready, ready >= books.batch_groups
        else:
            return _ENDLESS
        if is_provided and books.manifest is not None and version < books.manifest.version:
            return 0
        return math.ceil(missing / max(_LEAST_SHARE, self._signal_share))

    def capacity(self, version: PolicyVersion) -> int:
        """Groups under way at which an actor with these weights gets no more leases."""
        return capacity(
            self._books.line.lag([version], self._books.line.version),
            max_staleness=self._books.schedule.max_staleness,
            batch_groups=self._books.batch_groups,
            batches_left=self._books.batches_left,
        )

    def renew(self, actor: str, lease_ids: Iterable[str] | None, now: float) -> None:
        """An actor lives and holds these leases; None stands for all that it was granted."""
        self._books.leases.renew(actor, lease_ids, now + self._books.config.lease_s)

    def submit(self, lease_id: str, group: Group) -> None:
        """A group is there. Refuses "unknown_lease", "wrong_entry", "unknown_version"."""
        books = self._books
        lease = self._find_lease(lease_id)
        if lease is None:
            books.events["submits_repeated"] += 1
            return
        if group.entry_id != books.ledger.entry_id(lease.order):
            raise RefusedError("wrong_entry", f"lease {lease_id} is not of entry {group.entry_id}")
        versions = tuple(group.versions())
        books.line.require_known(versions, books.next_version)
        books.leases.fulfil(lease_id)
        books.tally.add(group)
        books.events["groups_submitted"] += 1
        books.events["tokens_received"] += group.num_tokens
        if books.lag_of(versions) > books.schedule.max_staleness:
            books.discard_stale(lease.order)
        else:
            self._shelve(ShelvedGroup(lease.order, group, versions))
        books.update_rounds()

    def give_back(self, lease_id: str, failed: bool, reason: str) -> None:
        """A lease is handed back, drained or failed. Refuses "unknown_lease"."""
        books = self._books
        lease = self._find_lease(lease_id)
        if lease is None:
            return
        books.leases.fulfil(lease_id)
        if not failed:
            books.apply(lease.order, Event.RELEASE, reason, count="leases_returned")
        elif books.ledger.entry(lease.order).failures + 1 < books.config.max_attempts:
            books.apply(lease.order, Event.FAIL, reason, count="groups_failed")
        else:
            books.apply(lease.order, Event.BURY, reason, count="dead_letters")
        books.update_rounds()

    def expire(self, now: float) -> None:
        """Time passes: leases that have run out return."""
        self._books.release(self._books.leases.void_expired(now), "expired", count="leases_expired")

    def leaving(self, actor: str) -> None:
        """An actor takes no more leases, and finishes those that it holds: the others share what there will be."""
        self._at_work.discard(actor)

    def gone(self, actor: str) -> None:
        """An actor died or left: its leases return."""
        self._at_work.discard(actor)
        self._books.release(self._books.leases.void_of(actor), "actor gone", count="leases_lost")

    def _find_lease(self, lease_id: str) -> ActiveLease | None:
        """The lease; None for one that ended well, so that this is a repetition. Refuses "unknown_lease"."""
        lease = self._books.leases.find(lease_id)
        if lease is None and not self._books.leases.was_fulfilled(lease_id):
            self._books.events["leases_unknown"] += 1
            raise RefusedError("unknown_lease", f"lease {lease_id} has expired; its prompt is with somebody else")
        return lease

    def _grant(self, order: int, actor: str, now: float) -> WorkItem:
        books = self._books
        attempt = books.ledger.entry(order).attempts
        books.apply(order, Event.LEASE, count="leases_granted")
        epoch, index = books.ledger.locate(order)
        entry_id = f"{epoch}:{index}"
        lease_id = f"{entry_id}#{books.line.lineage.incarnation}.{attempt}"
        books.leases.grant(lease_id, order, actor, now + books.config.lease_s)
        return WorkItem(lease_id=lease_id, entry_id=entry_id, epoch=epoch, index=index, attempt=attempt)

    def _shelve(self, shelved: ShelvedGroup) -> None:
        self._books.apply(shelved.order, Event.SUBMIT, group=shelved.group)
        is_filtered = self._books.config.filter_zero_signal and shelved.group.is_without_signal
        self._signal_share += _SHARE_DECAY * ((not is_filtered) - self._signal_share)
        if is_filtered:
            self._books.tally.groups_filtered += 1
            self._books.apply(shelved.order, Event.FILTER, "all rewards are equal", count="groups_filtered")
        else:
            self._books.shelf.put(shelved)
