"""What happened lately, for those who watch: a bounded list of lines, in which what happens often is counted."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from buffer.states import Event
from buffer.store import Transition
from protocol.status import MAX_NOTE, LogLine

MAX_LINES = 60
SAME_LINE_S = 60.0
"""For so long after a line began, the same thing is counted in it."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How an event of the ledger is told."""

    what: str
    is_warning: bool = False
    is_split_by_cause: bool = False
    """Whether each cause has a line of its own; otherwise one line shows the last cause."""


_KINDS = {
    Event.FAIL: _Kind("groups failed and are tried again", is_warning=True),
    Event.BURY: _Kind("prompts given up after too many attempts (dead letters)", is_warning=True),
    Event.STALE: _Kind("stale groups, generated again", is_split_by_cause=True),
    Event.DROP: _Kind("prompts dropped", is_split_by_cause=True),
    Event.RELEASE: _Kind("prompts handed back", is_split_by_cause=True),
    Event.REWIND: _Kind("groups taken back", is_split_by_cause=True),
}


@dataclass(slots=True)
class _Entry:
    """A line, what it counts, and when it began."""

    line: LogLine
    key: str
    begun_s: float


class Journal:
    """The newest lines. `now_s` gives seconds since 1970."""

    def __init__(self, now_s: Callable[[], float] = time.time) -> None:
        self._now_s = now_s
        self._entries: deque[_Entry] = deque(maxlen=MAX_LINES)
        self._num_lines = 0

    @property
    def lines(self) -> list[LogLine]:
        """Oldest first; a line counts as new whenever its count grows."""
        return [entry.line for entry in self._entries]

    def note(self, text: str, *, is_warning: bool = False, topic: str = "") -> None:
        """Something happened once. It takes the place of what was noted on the same topic before."""
        for entry in [entry for entry in self._entries if topic and entry.key == topic]:
            self._entries.remove(entry)
        self._begin(text, key=topic, is_warning=is_warning)

    def tell(self, transitions: Iterable[Transition]) -> None:
        """Count what ledger entries went through, as far as anybody needs to hear of it."""
        for transition in transitions:
            kind = _KINDS.get(transition.event)
            if kind is not None:
                self._count(kind, transition)

    def _count(self, kind: _Kind, transition: Transition) -> None:
        cause = transition.reason if kind.is_split_by_cause else f"last {transition.entry_id}: {transition.reason}"
        key = f"{kind.what} {cause}" if kind.is_split_by_cause else kind.what
        entry = self._find_open(key)
        count = 1 if entry is None else entry.line.count + 1
        text = f"{kind.what}: {count} ({cause})"
        if entry is None:
            self._begin(text, key=key, is_warning=kind.is_warning)
            return
        self._entries.remove(entry)
        entry.line = LogLine(
            number=entry.line.number,
            time_s=self._now_s(),
            text=text[:MAX_NOTE],
            count=count,
            is_warning=kind.is_warning,
        )
        self._entries.append(entry)

    def _find_open(self, key: str) -> _Entry | None:
        now_s = self._now_s()
        return next((x for x in self._entries if x.key == key and now_s - x.begun_s <= SAME_LINE_S), None)

    def _begin(self, text: str, *, key: str = "", is_warning: bool) -> None:
        self._num_lines += 1
        now_s = self._now_s()
        line = LogLine(number=self._num_lines, time_s=now_s, text=text[:MAX_NOTE], is_warning=is_warning)
        self._entries.append(_Entry(line, key, now_s))
