"""The prompt ledger: every prompt of every epoch is one entry, in exactly one state, with one ending.

Entries are opened lazily, in order; `order` counts them from 0 over all epochs. The state of every opened
entry is one byte, so that a million of them fit in a megabyte; only entries under way carry more.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np

from buffer.compact import STATES, decode_states, encode_states
from buffer.errors import LedgerError
from buffer.states import IN_FLIGHT, TERMINAL, Event, State, next_state
from buffer.store import Transition
from protocol.group import Group

_CODES = {state: code for code, state in enumerate(STATES)}
_READY = _CODES[State.READY]


@dataclass(slots=True)
class Entry:
    """What is known of an entry that has not ended."""

    attempts: int = 0
    failures: int = 0
    step: int | None = None
    """Optimizer step that the update with it led to."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A prompt that failed too often, and why."""

    entry_id: str
    attempts: int
    reason: str


class UnderWay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An Entry as plain data."""

    order: int
    attempts: int
    failures: int
    step: int | None


class LedgerSnapshot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ledger as plain data."""

    num_prompts: int
    epochs: int | None
    seed: int
    shuffle: bool
    states: str
    """Runs of states, see `buffer.compact`."""
    counts: dict[str, int]
    opened: int
    total: int | None
    under_way: list[UnderWay]
    """Entries that were tried and have not ended."""
    dead_letters: list[DeadLetter]


def parse_ledger(state: Mapping[str, object]) -> LedgerSnapshot:
    """Read what `Ledger.snapshot` gave. Raises LedgerError."""
    try:
        return msgspec.convert(state, LedgerSnapshot)
    except msgspec.ValidationError as error:
        raise LedgerError(f"this is not the state of a ledger: {error}") from error


@lru_cache(maxsize=4)
def epoch_order(num_prompts: int, seed: int, epoch: int) -> np.ndarray:
    """The order of the prompts in an epoch, int64[num_prompts], a pure function of its arguments."""
    return np.random.default_rng([seed, epoch]).permutation(num_prompts)


class Ledger:
    """All entries and the counts of their states.

    Args:
        num_prompts: prompts of the task, >= 1.
        epochs: how often each is used; None without end.
        seed, shuffle: each epoch's order is a pure function of (seed, epoch), or 0, 1, 2, ... without shuffle.
    """

    def __init__(self, num_prompts: int, *, epochs: int | None = None, seed: int = 0, shuffle: bool = True) -> None:
        if num_prompts < 1:
            raise LedgerError(f"a ledger of {num_prompts} prompts: expected at least 1; is the task empty?")
        self.num_prompts = num_prompts
        self.epochs = epochs
        self.seed = seed
        self.shuffle = shuffle
        self.counts: dict[State, int] = dict.fromkeys(STATES, 0)
        self.dead_letters: list[DeadLetter] = []
        self._codes = bytearray()
        self._live: dict[int, Entry] = {}
        self._ready: list[int] = []

    @property
    def opened(self) -> int:
        """Entries opened so far."""
        return len(self._codes)

    @property
    def total(self) -> int | None:
        """Entries of all epochs; None without end."""
        return None if self.epochs is None else self.epochs * self.num_prompts

    def locate(self, order: int) -> tuple[int, int]:
        """(epoch, index of the prompt) of the entry at this place."""
        epoch, rank = divmod(order, self.num_prompts)
        return epoch, int(epoch_order(self.num_prompts, self.seed, epoch)[rank]) if self.shuffle else rank

    def entry_id(self, order: int) -> str:
        """`"epoch:index"`."""
        epoch, index = self.locate(order)
        return f"{epoch}:{index}"

    def state(self, order: int) -> State:
        """The state of an opened entry."""
        return STATES[self._codes[order]]

    def entry(self, order: int) -> Entry:
        """What is known of an entry; a blank one if it has ended or was never tried."""
        return self._live.get(order) or Entry()

    def orders_in(self, *states: State) -> list[int]:
        """Opened entries in one of these states, ascending."""
        codes = np.frombuffer(bytes(self._codes), dtype=np.uint8)
        orders: list[int] = np.flatnonzero(np.isin(codes, [_CODES[state] for state in states])).tolist()
        return orders

    def next_ready(self) -> int | None:
        """The first ready entry, opened now if need be; None when every prompt of every epoch is under way or ended."""
        while self._ready:
            if self.state(self._ready[0]) is State.READY:
                return self._ready[0]
            heapq.heappop(self._ready)
        if self.total is not None and self.opened >= self.total:
            return None
        return self._open()

    def open_all(self) -> None:
        """Open what is left of the last epoch, so that it can end."""
        for _ in range(self.num_unopened() or 0):
            self._open()

    def num_unopened(self) -> int | None:
        """Entries that are still to be opened; None without end."""
        return None if self.total is None else max(0, self.total - self.opened)

    def apply(
        self, order: int, event: Event, *, step: int | None = None, reason: str = "", group: Group | None = None
    ) -> Transition:
        """Let something happen to an entry.

        Raises:
            TransitionError: the state of the entry does not allow it; nothing has changed.
        """
        entry_id, before = self.entry_id(order), self.state(order)
        after = next_state(entry_id, before, event)
        entry = self._live.setdefault(order, Entry())
        entry.attempts += event is Event.LEASE
        entry.failures += event in (Event.FAIL, Event.BURY)
        if event in (Event.COMMIT, Event.REWIND):
            entry.step = step
        self._move(order, before, after)
        if event is Event.BURY:
            self.dead_letters.append(DeadLetter(entry_id, entry.attempts, reason))
        if after in TERMINAL:
            del self._live[order]
        return Transition(order, entry_id, event, after, entry.attempts, entry.failures, entry.step, reason, group)

    def check(self) -> None:
        """Raise LedgerError unless the counts equal the states of the entries and add up to `opened`."""
        tally = Counter(self._codes)
        expected = {state: tally[_CODES[state]] for state in STATES}
        if self.counts != expected or sum(self.counts.values()) != self.opened:
            raise LedgerError(
                f"the sum does not add up: counts {self.counts}, entries {expected}, opened {self.opened}"
            )

    def snapshot(self) -> dict[str, object]:
        """The ledger as plain data that msgpack and JSON can carry, see LedgerSnapshot."""
        snapshot = LedgerSnapshot(
            num_prompts=self.num_prompts,
            epochs=self.epochs,
            seed=self.seed,
            shuffle=self.shuffle,
            states=encode_states(self._codes),
            counts={state.value: count for state, count in self.counts.items()},
            opened=self.opened,
            total=self.total,
            under_way=[UnderWay(order, x.attempts, x.failures, x.step) for order, x in sorted(self._live.items())],
            dead_letters=self.dead_letters,
        )
        plain: dict[str, object] = msgspec.to_builtins(snapshot)
        return plain

    def restore(self, state: Mapping[str, object]) -> None:
        """Take over a snapshot. What was leased, buffered or pulled is ready again: its group was not kept.

        Raises:
            LedgerError: the snapshot is damaged, or of other prompts, another seed or another order.
        """
        saved = self._parse(state)
        self._codes = codes = decode_states(saved.states)
        self._live = {x.order: Entry(x.attempts, x.failures, x.step) for x in saved.under_way}
        self.dead_letters = list(saved.dead_letters)
        for order in self.orders_in(*IN_FLIGHT):
            codes[order] = _READY
        tally = Counter(codes)
        self.counts = {state: tally[_CODES[state]] for state in STATES}
        self._ready = self.orders_in(State.READY)

    def _parse(self, state: Mapping[str, object]) -> LedgerSnapshot:
        saved = parse_ledger(state)
        for name in ("num_prompts", "seed", "shuffle"):
            if getattr(saved, name) != getattr(self, name):
                raise LedgerError(
                    f"{name} is {getattr(self, name)}, but the saved ledger was of {getattr(saved, name)}: "
                    "resume with the task, seed and shuffle that the run began with"
                )
        tally = Counter(decode_states(saved.states))
        found = {state.value: tally[_CODES[state]] for state in STATES}
        if found != saved.counts or sum(found.values()) != saved.opened:
            raise LedgerError(f"the saved ledger does not add up: counts {saved.counts}, entries {found}")
        if any(not 0 <= x.order < saved.opened for x in saved.under_way):
            raise LedgerError(f"the saved ledger names entries beyond the {saved.opened} opened; it is damaged")
        return saved

    def _open(self) -> int:
        order = self.opened
        self._codes.append(_CODES[State.READY])
        self.counts[State.READY] += 1
        heapq.heappush(self._ready, order)
        return order

    def _move(self, order: int, before: State, after: State) -> None:
        self._codes[order] = _CODES[after]
        self.counts[before] -= 1
        self.counts[after] += 1
        if after is State.READY:
            heapq.heappush(self._ready, order)
