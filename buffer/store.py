"""Where transitions are kept, so that a hub that dies can go on.

The hub appends every transition before the acknowledgement of what caused it leaves. A store keeps at least
the latest transition of each entry, and of a buffered one its group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from buffer.states import Event, State
from protocol.group import Group


@dataclass(frozen=True, slots=True)
class Transition:
    """One entry changed its state; the fields tell all that there is to know of it afterwards."""

    order: int
    """Place of the entry in the ledger, from 0."""
    entry_id: str
    event: Event
    state: State
    """The state afterwards."""
    attempts: int
    failures: int
    step: int | None
    """Optimizer step that the update with this entry led to; None before it is trained."""
    reason: str = ""
    group: Group | None = None
    """What was submitted; with the event "submit" alone."""


class Store(Protocol):
    """Keeps transitions."""

    def append(self, transitions: Sequence[Transition]) -> None:
        """Keep these, in order; on return they are as durable as the store can make them."""

    def load(self) -> Iterable[Transition]:
        """The latest transition of each entry, in the order of the ledger, with its group while it has one."""

    def close(self) -> None:
        """Release what the store holds."""


class MemoryStore:
    """A store that lives and dies with its process."""

    _HOLDS_GROUP = frozenset({State.BUFFERED, State.PULLED})

    def __init__(self) -> None:
        self._latest: dict[int, Transition] = {}

    def append(self, transitions: Sequence[Transition]) -> None:
        """Keep these in memory."""
        for transition in transitions:
            before = self._latest.get(transition.order)
            if transition.group is None and before is not None and transition.state in self._HOLDS_GROUP:
                transition = replace(transition, group=before.group)
            self._latest[transition.order] = transition

    def load(self) -> list[Transition]:
        """The latest transition of each entry."""
        return [self._latest[order] for order in sorted(self._latest)]

    def close(self) -> None:
        """Forget everything."""
        self._latest.clear()
