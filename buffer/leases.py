"""The leases under way: who holds which entry, and until when."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

_REMEMBERED = 65_536
"""Leases that ended well are remembered, so that a repeated Submit is acknowledged again."""


@dataclass(slots=True)
class ActiveLease:
    """One entry in the hands of one actor."""

    lease_id: str
    order: int
    actor: str
    expires_s: float


class LeaseBook:
    """All leases under way. Times are of whatever clock the caller passes."""

    def __init__(self) -> None:
        self._leases: dict[str, ActiveLease] = {}
        self._held: dict[str, dict[str, ActiveLease]] = {}
        self._fulfilled: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._leases)

    def grant(self, lease_id: str, order: int, actor: str, expires_s: float) -> None:
        """Begin a lease."""
        lease = ActiveLease(lease_id, order, actor, expires_s)
        self._leases[lease_id] = lease
        self._held.setdefault(actor, {})[lease_id] = lease

    def find(self, lease_id: str) -> ActiveLease | None:
        """The lease under way with this name."""
        return self._leases.get(lease_id)

    def was_fulfilled(self, lease_id: str) -> bool:
        """Whether this lease ended by its actor's own message, not long ago."""
        return lease_id in self._fulfilled

    def num_held(self, actor: str) -> int:
        """Leases of this actor."""
        return len(self._held.get(actor, ()))

    def fulfil(self, lease_id: str) -> None:
        """End a lease because its actor said so."""
        self._remove(self._leases[lease_id])
        self._fulfilled[lease_id] = None
        if len(self._fulfilled) > _REMEMBERED:
            self._fulfilled.popitem(last=False)

    def renew(self, actor: str, lease_ids: Iterable[str] | None, expires_s: float) -> None:
        """Prolong the leases that an actor says it holds; None prolongs all of its leases."""
        held = self._held.get(actor, {})
        for lease_id in held if lease_ids is None else lease_ids:
            if lease_id in held:
                held[lease_id].expires_s = expires_s

    def void_of(self, actor: str) -> list[ActiveLease]:
        """End all leases of an actor and return them."""
        return self._void(list(self._held.get(actor, {}).values()))

    def void_expired(self, now: float) -> list[ActiveLease]:
        """End the leases that have run out and return them."""
        return self._void([lease for lease in self._leases.values() if lease.expires_s <= now])

    def void_all(self) -> list[ActiveLease]:
        """End every lease and return them."""
        return self._void(list(self._leases.values()))

    def _void(self, leases: list[ActiveLease]) -> list[ActiveLease]:
        for lease in leases:
            self._remove(lease)
        return leases

    def _remove(self, lease: ActiveLease) -> None:
        del self._leases[lease.lease_id]
        held = self._held[lease.actor]
        del held[lease.lease_id]
        if not held:
            del self._held[lease.actor]
