"""Cores that the learner lends to the engines of its machine while it waits for a batch.

A file holds one byte, 1 while the learner works. There is no message and no lock: an engine looks before each decoding
step, so that a learner that goes on shares its cores with the step under way and with no more. A learner that was
killed leaves the byte as it was, until its successor begins.

The learner does not borrow. A second thread makes its step a fifth shorter as long as the engine stays away; when that
goes on, each parallel loop of both waits for the core that they share, and a step took 8 s where it takes 5.5 s.
"""

from __future__ import annotations

import os
from pathlib import Path

from protocol.config import Section

_WORKS, _WAITS = b"\x01", b"\x00"


class CoreLoan(Section):
    """What an engine may borrow."""

    file: Path
    """Where the learner notes whether it works, on this machine."""
    own: list[int]
    """CPU cores of the engine."""
    lent: list[int]
    """The learner's cores that it may use, too, while the learner waits."""


class Lender:
    """The learner's side. Without a file it lends nothing."""

    def __init__(self, file: Path | None) -> None:
        self._file = None if file is None else os.open(file, os.O_WRONLY | os.O_CREAT, 0o644)
        self.note(works=True)

    def note(self, *, works: bool) -> None:
        """Whether the learner needs its cores from now on."""
        if self._file is not None:
            os.pwrite(self._file, _WORKS if works else _WAITS, 0)

    def close(self) -> None:
        """From now on it needs none."""
        self.note(works=False)
        if self._file is not None:
            os.close(self._file)


class Borrower:
    """An engine process's side."""

    def __init__(self, loan: CoreLoan) -> None:
        self._file = os.open(loan.file, os.O_RDONLY | os.O_CREAT, 0o644)

    @property
    def may_borrow(self) -> bool:
        """Whether the learner waits at this moment; not as long as no learner has said anything."""
        return os.pread(self._file, 1, 0) == _WAITS
