"""Errors of the buffer.

BufferFault
├── TransitionError     an event that the state of an entry does not allow: our own misuse
└── LedgerError         a saved ledger that is damaged or of another run, or a sum that does not add up
"""

from __future__ import annotations


class BufferFault(Exception):
    """Base of what can go wrong inside the buffer."""


class TransitionError(BufferFault):
    """The event is illegal in the state of the entry, which stays as it was."""

    def __init__(self, entry_id: str, event: str, state: str, allowed: list[str]) -> None:
        super().__init__(f"entry {entry_id}: event {event!r} is illegal in state {state!r}, expected one of {allowed}")
        self.entry_id = entry_id
        self.event = event
        self.state = state
        self.allowed = allowed

    def __reduce__(self) -> tuple[type[TransitionError], tuple[str, str, str, list[str]]]:
        # Without it an instance could not be rebuilt in another process, and Ray would lose what it says.
        return type(self), (self.entry_id, self.event, self.state, self.allowed)


class LedgerError(BufferFault):
    """A ledger state cannot be restored, or the counts of a ledger do not add up."""
