"""The table of transitions, and the ledger that obeys it."""

from __future__ import annotations

import itertools

import pytest

from buffer.errors import TransitionError
from buffer.ledger import Ledger
from buffer.states import TERMINAL, TRANSITIONS, Event, State, next_state

ILLEGAL = [pair for pair in itertools.product(State, Event) if pair not in TRANSITIONS]
WAYS: dict[State, list[Event]] = {
    State.READY: [],
    State.LEASED: [Event.LEASE],
    State.BUFFERED: [Event.LEASE, Event.SUBMIT],
    State.PULLED: [Event.LEASE, Event.SUBMIT, Event.PULL],
    State.TRAINED: [Event.LEASE, Event.SUBMIT, Event.PULL, Event.COMMIT],
    State.SETTLED: [Event.LEASE, Event.SUBMIT, Event.PULL, Event.COMMIT, Event.SETTLE],
    State.FILTERED: [Event.LEASE, Event.SUBMIT, Event.FILTER],
    State.DROPPED: [Event.DROP],
    State.DEAD_LETTER: [Event.LEASE, Event.BURY],
}


def test_every_state_can_be_reached_and_every_ending_is_final() -> None:
    assert set(TRANSITIONS.values()) == set(State)
    assert {state for state in State if not any(origin is state for origin, _ in TRANSITIONS)} == TERMINAL


@pytest.mark.parametrize(("state", "event"), ILLEGAL)
def test_illegal_transition_names_entry_event_and_state_and_changes_nothing(state: State, event: Event) -> None:
    ledger = Ledger(3, shuffle=False)
    order = ledger.next_ready()
    assert order is not None
    for step in WAYS[state]:
        ledger.apply(order, step)
    assert ledger.state(order) is state
    before = ledger.snapshot()
    with pytest.raises(TransitionError, match=f"entry 0:0: event '{event}' is illegal in state '{state}'"):
        ledger.apply(order, event)
    assert ledger.snapshot() == before
    ledger.check()


def test_legal_transitions_lead_where_the_table_says() -> None:
    for (state, event), after in TRANSITIONS.items():
        assert next_state("0:0", state, event) is after
