"""The states of a ledger entry, and the one table of legal transitions.

ready ─lease─► leased ─submit─► buffered ─pull─► pulled ─commit─► trained ─settle─► settled

back to ready       from leased     release, fail, stale
                    from buffered   release, stale
                    from pulled     release
                    from trained    rewind
back to buffered    from pulled     rewind
the other endings   from leased     bury ► dead_letter
                    from buffered   filter ► filtered
                    from ready, leased, buffered    drop ► dropped
"""

from __future__ import annotations

from enum import StrEnum

from buffer.errors import TransitionError


class State(StrEnum):
    """Where an entry is."""

    READY = "ready"
    LEASED = "leased"
    BUFFERED = "buffered"
    PULLED = "pulled"
    TRAINED = "trained"
    SETTLED = "settled"
    FILTERED = "filtered"
    DROPPED = "dropped"
    DEAD_LETTER = "dead_letter"


class Event(StrEnum):
    """What happens to an entry."""

    LEASE = "lease"
    SUBMIT = "submit"
    RELEASE = "release"
    """Given back without fault: expired, drained, actor gone, end of the run."""
    FAIL = "fail"
    STALE = "stale"
    BURY = "bury"
    """Failed too often."""
    FILTER = "filter"
    PULL = "pull"
    COMMIT = "commit"
    REWIND = "rewind"
    """The learner is gone, and with it the work on this entry."""
    SETTLE = "settle"
    DROP = "drop"


TERMINAL = frozenset({State.SETTLED, State.FILTERED, State.DROPPED, State.DEAD_LETTER})
IN_FLIGHT = (State.LEASED, State.BUFFERED, State.PULLED)
"""States that count against the capacity of the admission rule."""

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.READY, Event.LEASE): State.LEASED,
    (State.READY, Event.DROP): State.DROPPED,
    (State.LEASED, Event.SUBMIT): State.BUFFERED,
    (State.LEASED, Event.RELEASE): State.READY,
    (State.LEASED, Event.FAIL): State.READY,
    (State.LEASED, Event.STALE): State.READY,
    (State.LEASED, Event.BURY): State.DEAD_LETTER,
    (State.LEASED, Event.DROP): State.DROPPED,
    (State.BUFFERED, Event.FILTER): State.FILTERED,
    (State.BUFFERED, Event.PULL): State.PULLED,
    (State.BUFFERED, Event.STALE): State.READY,
    (State.BUFFERED, Event.RELEASE): State.READY,
    (State.BUFFERED, Event.DROP): State.DROPPED,
    (State.PULLED, Event.COMMIT): State.TRAINED,
    (State.PULLED, Event.REWIND): State.BUFFERED,
    (State.PULLED, Event.RELEASE): State.READY,
    (State.TRAINED, Event.SETTLE): State.SETTLED,
    # The gradient is lost with the learner, and the group was generated too long ago to be of use.
    (State.TRAINED, Event.REWIND): State.READY,
}


def next_state(entry_id: str, state: State, event: Event) -> State:
    """The state after the event. Raises TransitionError when the table has no such transition."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        allowed = [legal.value for origin, legal in TRANSITIONS if origin is state]
        raise TransitionError(entry_id, event.value, state.value, allowed) from None
