"""Cores that the learner and the engines of one machine lend each other while they have nothing to do.

    byte 0        of a file: the learner, which waits for a batch or works
    byte 1        an evaluator on the actors' cores, which waits for weights or works; unsaid where there is none
    byte 2 + i    actor i, which waits for a lease or works

There is no message and no lock. An engine looks before each decoding step and the learner before each layer, so that
one that goes on shares its cores with what is under way: a step, a layer, at most the head or the optimizer step. One
that was killed leaves its byte as it was, until its successor begins.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from protocol.config import Section

LEARNER, EVALUATOR, FIRST_ACTOR = 0, 1, 2
# The zero that fills a gap, like no byte at all, means that nothing was said.
_WAITS, _WORKS = 1, 2
_MOST_SEATS = 4096


class CoreLoan(Section):
    """Where one of them notes that its cores are free, and what it may borrow itself."""

    file: Path
    """On this machine."""
    seat: int
    """Its own byte: `LEARNER`, `EVALUATOR`, or `FIRST_ACTOR` and the actor's index."""
    lent: list[int]
    """CPU cores beyond its own that it may use at times."""


class Lender:
    """One that notes whether it needs its cores. Without a loan it notes nothing."""

    def __init__(self, loan: CoreLoan | None) -> None:
        self._file = None if loan is None else os.open(loan.file, os.O_WRONLY | os.O_CREAT, 0o644)
        self._seat = LEARNER if loan is None else loan.seat
        self.note(works=True)

    @property
    def lends(self) -> bool:
        """Whether there is anybody to lend to."""
        return self._file is not None

    def note(self, *, works: bool) -> None:
        """Whether it needs its cores from now on."""
        if self._file is not None:
            os.pwrite(self._file, bytes([_WORKS if works else _WAITS]), self._seat)

    def close(self) -> None:
        """From now on it needs none. Idempotent."""
        self.note(works=False)
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Borrower:
    """One that gives itself threads on the cores of the others while they are free.

    Such a thread exists for nothing but wide work: otherwise it sleeps, and never runs beside the owner of its core. So
    work on its own cores alone costs what it would without the loan.

    Args:
        num_own: threads on its own cores.
        set_threads: makes the number of threads, and work for all of them: OpenMP starts a thread when it is first
            needed, on the cores of the one that asks for it.
    """

    def __init__(self, loan: CoreLoan, num_own: int, set_threads: Callable[[int], None]) -> None:
        self._file = os.open(loan.file, os.O_RDONLY | os.O_CREAT, 0o644)
        self._is_learner = loan.seat == LEARNER
        self._lent, self._num_own, self._set_threads = set(loan.lent), num_own, set_threads
        self._is_wide = False

    @property
    def may_borrow(self) -> bool:
        """For an engine whether the learner waits, for the learner whether all who have the actors' cores do."""
        seats = os.pread(self._file, _MOST_SEATS, 0)
        if not self._is_learner:
            return seats[:1] == bytes([_WAITS])
        return set(seats[FIRST_ACTOR:]) == {_WAITS} and seats[EVALUATOR] != _WORKS

    def adjust(self) -> None:
        """Take the cores, or leave them to the others. Called between two pieces of work."""
        if self.may_borrow == self._is_wide:
            return
        self._is_wide = not self._is_wide
        if not self._is_wide:
            self._set_threads(self._num_own)
            return
        before = set(os.listdir("/proc/self/task"))
        self._set_threads(self._num_own + len(self._lent))
        for thread in set(os.listdir("/proc/self/task")) - before:
            # Others start threads too, such as one for each look at the metrics, which may be gone by now.
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), self._lent)
