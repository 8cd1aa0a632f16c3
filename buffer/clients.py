"""Who is connected to the hub, and when each was last heard."""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol.errors import RefusedError
from protocol.messages import Heartbeat, Hello
from protocol.status import ClientStatus
from protocol.version import PolicyVersion


@dataclass(slots=True)
class ClientRecord:
    """One client. Times are of the hub's clock."""

    name: str
    role: str
    peer: bytes
    pid: int
    host: str
    seen_s: float
    metrics_address: str = ""
    version: PolicyVersion | None = None
    waiting_for: str = ""
    since_s: float = 0.0
    """When it began to wait for this, or to work."""
    metrics: dict[str, float] = field(default_factory=dict)
    gone: bool = False
    is_leaving: bool = False
    """Whether it takes no more leases."""
    told_s: float = 0.0
    """When it was last sent a push; -inf after one that could not be sent."""
    lease_requests: int = 0
    """A newer Lease ends the one that still waits: the actor has given that one up."""

    def is_same_process(self, hello: Hello) -> bool:
        """Whether this hello comes from the process already known."""
        return (self.name, self.pid, self.host) == (hello.name, hello.pid, hello.host)

    def load(self, version: PolicyVersion | None) -> bool:
        """Note the weights it has; whether they are new."""
        is_new = version is not None and (self.version is None or version > self.version)
        self.version = version if is_new else self.version
        return is_new

    def status(self, num_leases: int, now: float) -> ClientStatus:
        """For the Status answer."""
        return ClientStatus(
            name=self.name,
            role=self.role,
            version=self.version,
            waiting_for=self.waiting_for,
            num_leases=num_leases,
            seen_s=max(0.0, now - self.seen_s),
            metrics=self.metrics,
            metrics_address=self.metrics_address,
            since_s=max(0.0, now - self.since_s),
            host=self.host,
        )


class Clients:
    """All clients that said hello, by name and by connection."""

    def __init__(self) -> None:
        self._by_name: dict[str, ClientRecord] = {}
        self._by_peer: dict[bytes, ClientRecord] = {}

    def hello(self, peer: bytes, message: Hello, now: float) -> list[ClientRecord]:
        """Enter a client. Returns the processes that it takes the place of: of its name, or the learner before it."""
        displaced = [
            record
            for record in self.present()
            if not record.is_same_process(message)
            and (record.name == message.name or record.role == message.role == "learner")
        ]
        for gone in displaced:
            self._forget(gone)
        known = self._by_name.get(message.name)
        if known is not None and not known.is_same_process(message):
            self._forget(known)  # gone before: what the hub knew of it is not true of its successor
        fresh = ClientRecord(message.name, message.role, peer, message.pid, message.host, now, since_s=now)
        record = self._by_name.setdefault(message.name, fresh)
        record.metrics_address = message.metrics_address
        self._attach(record, peer, now)
        return displaced

    def knows(self, message: Hello) -> bool:
        """Whether this hello comes from a process that said hello before."""
        record = self._by_name.get(message.name)
        return record is not None and record.is_same_process(message)

    def heard(self, peer: bytes, now: float) -> None:
        """A message came over this connection."""
        record = self._by_peer.get(peer)
        if record is not None:
            record.seen_s, record.gone = now, False

    def named(self, name: str, peer: bytes, now: float) -> ClientRecord:
        """The client that gives this name, perhaps over a new connection. Refuses "unknown_client"."""
        record = self._by_name.get(name)
        if record is None:
            raise RefusedError("unknown_client", f"the hub does not know {name!r}: it has to say Hello first")
        self._attach(record, peer, now)
        return record

    def beat(self, peer: bytes, message: Heartbeat, now: float) -> tuple[ClientRecord, bool]:
        """Note a heartbeat; whether the client has new weights."""
        record = self.named(message.name, peer, now)
        if record.waiting_for != message.waiting_for:
            record.waiting_for, record.since_s = message.waiting_for, now
        record.metrics = message.metrics
        return record, record.load(message.version)

    def leave(self, name: str) -> None:
        """The client has said goodbye."""
        if (record := self._by_name.get(name)) is not None:
            record.gone = True  # for a Lease of it that still waits
            self._forget(record)

    def silent_actors(self, now: float, timeout_s: float) -> list[ClientRecord]:
        """Actors, and the evaluator, unheard for so long, each reported once."""
        silent = [x for x in self.present() if x.role in ("actor", "evaluator") and now - x.seen_s > timeout_s]
        for record in silent:
            record.gone = True
        return silent

    def present(self) -> list[ClientRecord]:
        """Clients that are not gone."""
        return [record for record in self._by_name.values() if not record.gone]

    def addressees(self, name: str | None) -> list[ClientRecord]:
        """The client of this name, or every actor; also those that are silent, for they may only be slow."""
        return [x for x in self._by_name.values() if (x.role == "actor" if name is None else x.name == name)]

    def _attach(self, record: ClientRecord, peer: bytes, now: float) -> None:
        if record.peer != peer:
            self._by_peer.pop(record.peer, None)
        record.peer, record.seen_s, record.gone = peer, now, False
        self._by_peer[peer] = record

    def _forget(self, record: ClientRecord) -> None:
        self._by_name.pop(record.name, None)
        self._by_peer.pop(record.peer, None)
