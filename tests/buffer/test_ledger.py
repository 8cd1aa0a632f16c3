"""Entries, their order, and a state that survives a restart."""

from __future__ import annotations

import json

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from buffer.compact import STATES, decode_states, encode_states
from buffer.errors import LedgerError
from buffer.ledger import Ledger, epoch_order
from buffer.states import Event, State


def take(ledger: Ledger, *events: Event) -> int:
    """Let these events happen to the next ready entry."""
    order = ledger.next_ready()
    assert order is not None
    for event in events:
        ledger.apply(order, event, step=5 if event is Event.COMMIT else None, reason="because")
    return order


def test_entries_are_opened_lazily_and_in_order() -> None:
    ledger = Ledger(3, epochs=2, shuffle=False)
    assert ledger.opened == 0
    assert [ledger.entry_id(take(ledger, Event.LEASE)) for _ in range(4)] == ["0:0", "0:1", "0:2", "1:0"]
    assert (ledger.opened, ledger.num_unopened(), ledger.total) == (4, 2, 6)


def test_finite_ledger_ends_and_endless_one_does_not() -> None:
    finite, endless = Ledger(2, epochs=1), Ledger(2)
    for ledger in (finite, endless):
        take(ledger, Event.LEASE)
        take(ledger, Event.LEASE)
    assert finite.next_ready() is None
    assert endless.next_ready() == 2
    assert endless.total is endless.num_unopened() is None


def test_each_epoch_has_an_order_of_its_own_that_seed_and_epoch_decide() -> None:
    orders = [epoch_order(50, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert epoch_order.__wrapped__(50, 1, 1).tolist() == orders[3]


def test_returned_entry_comes_before_younger_ones() -> None:
    ledger = Ledger(10, shuffle=False)
    first, second = take(ledger, Event.LEASE), take(ledger, Event.LEASE)
    ledger.apply(second, Event.RELEASE)
    ledger.apply(first, Event.RELEASE)
    assert [take(ledger, Event.LEASE) for _ in range(3)] == [first, second, 2]


def test_attempts_failures_and_dead_letters_are_counted() -> None:
    ledger = Ledger(1, epochs=1)
    order = take(ledger, Event.LEASE, Event.FAIL, Event.LEASE, Event.RELEASE, Event.LEASE)
    entry = ledger.entry(order)
    assert (entry.attempts, entry.failures) == (3, 1)
    ledger.apply(order, Event.BURY, reason="the reward raised")
    (letter,) = ledger.dead_letters
    assert (letter.entry_id, letter.attempts, letter.reason) == ("0:0", 3, "the reward raised")


def busy_ledger() -> Ledger:
    ledger = Ledger(9, epochs=3, seed=4)
    take(ledger, Event.LEASE, Event.SUBMIT, Event.PULL, Event.COMMIT, Event.SETTLE)
    take(ledger, Event.LEASE, Event.SUBMIT, Event.PULL, Event.COMMIT)
    take(ledger, Event.LEASE, Event.SUBMIT, Event.PULL)
    take(ledger, Event.LEASE, Event.SUBMIT)
    take(ledger, Event.LEASE, Event.FAIL, Event.LEASE)
    take(ledger, Event.LEASE, Event.BURY)
    take(ledger, Event.LEASE, Event.SUBMIT, Event.FILTER)
    take(ledger, Event.DROP)
    return ledger


def test_snapshot_travels_as_json_and_msgpack() -> None:
    state = busy_ledger().snapshot()
    assert json.loads(json.dumps(state)) == state
    assert msgpack.unpackb(msgpack.packb(state)) == state


def test_restored_ledger_goes_on_where_groups_are_not_needed() -> None:
    ledger, restored = busy_ledger(), Ledger(9, epochs=3, seed=4)
    restored.restore(ledger.snapshot())
    restored.check()
    # Pulled, buffered and leased (orders 2, 3, 4) have lost their groups and are ready; the others are as they were.
    assert [restored.state(order) for order in range(8)] == [
        State.SETTLED,
        State.TRAINED,
        *[State.READY] * 3,
        State.DEAD_LETTER,
        State.FILTERED,
        State.DROPPED,
    ]
    assert restored.entry(1).step == 5
    assert (restored.entry(4).attempts, restored.entry(4).failures) == (2, 1)
    assert restored.dead_letters == ledger.dead_letters
    assert [take(restored, Event.LEASE) for _ in range(4)] == [2, 3, 4, 8]


def test_finished_entries_cost_a_byte() -> None:
    ledger = Ledger(10_000, shuffle=False)
    for _ in range(5000):
        take(ledger, Event.LEASE, Event.SUBMIT, Event.FILTER)
    state = ledger.snapshot()
    assert state["states"] == "f5000"
    assert state["under_way"] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_prompts": 8}, "num_prompts is 9, but the saved ledger was of 8"),
        ({"seed": 5}, "seed is 4, but the saved ledger was of 5"),
        ({"shuffle": False}, "shuffle is True, but the saved ledger was of False"),
        ({"states": "s1t1p1b1l1d1f1"}, "does not add up"),
        ({"states": "s1?"}, "the file is damaged"),
        ({"states": "q3"}, "expected letters"),
        ({"states": "s999999999999"}, "the file is damaged"),
        (
            {"under_way": [{"order": 99, "attempts": 1, "failures": 0, "step": None}]},
            "names entries beyond the 8 opened",
        ),
        ({"opened": "many"}, "not the state of a ledger"),
        ({"surplus": 1}, "not the state of a ledger"),
    ],
)
def test_damaged_or_foreign_state_is_refused_with_the_reason(change: dict[str, object], message: str) -> None:
    ledger = Ledger(9, epochs=3, seed=4)
    with pytest.raises(LedgerError, match=message):
        ledger.restore({**busy_ledger().snapshot(), **change})
    assert ledger.opened == 0


def test_more_epochs_may_be_added_on_resume() -> None:
    ledger = Ledger(9, epochs=9, seed=4)
    ledger.restore(busy_ledger().snapshot())
    assert ledger.total == 81


def test_wrong_count_is_found() -> None:
    ledger = busy_ledger()
    ledger.counts[State.SETTLED] += 1
    with pytest.raises(LedgerError, match="does not add up"):
        ledger.check()


def test_empty_task_is_refused() -> None:
    with pytest.raises(LedgerError, match="is the task empty"):
        Ledger(0)


@given(st.binary(max_size=200).map(lambda raw: bytes(byte % len(STATES) for byte in raw)))
def test_states_survive_the_round_trip_through_text(codes: bytes) -> None:
    assert decode_states(encode_states(codes)) == codes


@given(st.text(alphabet="srf0129x?- ", max_size=12))
def test_damaged_text_gives_a_ledger_error_and_nothing_else(text: str) -> None:
    try:
        codes = decode_states(text)
    except LedgerError:
        return
    assert decode_states(encode_states(codes)) == codes
    assert all(code < len(STATES) for code in codes)
