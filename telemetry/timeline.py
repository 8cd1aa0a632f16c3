"""What a process did when: `timeline/PART.jsonl`, from which the report draws a lane for each process.

A process does one thing at a time, so a line is a moment at which it turned to something else:

    {"t": 1763712000.12, "what": "start", "pid": 71}   a process begins; whatever was before it has ended
    {"t": 1763712021.50, "what": "wait", "of": "a batch"}
    {"t": 1763712023.01, "what": "train", "of": "step 1"}
    {"t": 1763712033.00}                               still at it: written now and then, so that a killed process ends
    {"t": 1763712040.77, "what": null}                 the process ended, or what follows was not kept

`t` is the wall clock in Unix seconds, so that processes line up. Lines are collected in memory and written by a thread
every two seconds: a process that is killed loses no more than those. A file that grows too large keeps its
beginning and its end.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telemetry.lines import cut_torn_line, encode_line, read_lines

log = logging.getLogger(__name__)

ACTIVITIES = ("generate", "train", "publish", "load", "checkpoint", "start", "wait", "asleep", "end")
"""What processes do. "start" and "end" are building the engine and taking it down, "load" is loading weights."""
FLUSH_S = 2.0
STILL_S = 10.0
LIMIT_BYTES = 2 * 2**20
_HEAD_SHARE, _TAIL_SHARE = 0.4, 0.3
"""Shares of the limit that the beginning and the end may take when a file is cut."""


class Timeline:
    """Writes one process's timeline. `enter` may be called from any thread, and costs an append to a list.

    Args:
        run_dir: the run's folder.
        part: "learner-0", "actor-1": the file's name.
        is_enabled: otherwise every call does nothing.
        limit_bytes: size at which the file is cut.
        now: the wall clock.
    """

    def __init__(
        self,
        run_dir: Path,
        part: str,
        *,
        is_enabled: bool = True,
        limit_bytes: int = LIMIT_BYTES,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = Path(run_dir) / "timeline" / f"{part}.jsonl"
        self._limit_bytes, self._now = limit_bytes, now
        self._pending: list[dict[str, Any]] = []
        self._doing: tuple[str | None, str] = (None, "")
        self._written_s = 0.0
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        if is_enabled:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            cut_torn_line(self._path)
            self._note({"what": "start", "pid": os.getpid()})
            self._thread = threading.Thread(target=self._run, name="rapid-timeline", daemon=True)
            self._thread.start()

    def enter(self, what: str, of: str = "") -> None:
        """From now on the process does this; nothing is noted if it does already.

        Args:
            what: one of `ACTIVITIES`.
            of: what it waits for, which step it trains, which weights it loads.
        """
        if self._thread is not None and (what, of) != self._doing:
            self._doing = (what, of)
            self._note({"what": what, "of": of} if of else {"what": what})

    def flush(self) -> None:
        """Write what is pending. A disk that is full costs the timeline, never the run."""
        with self._lock:
            pending, self._pending = self._pending, []
        if not pending and self._now() - self._written_s >= STILL_S:
            pending = [{"t": self._stamp()}]
        if not pending:
            return
        try:
            with self._path.open("ab") as file:
                file.write(b"".join(encode_line(line) for line in pending))
                size = file.tell()
            self._written_s = self._now()
            if size > self._limit_bytes:
                _cut_middle(self._path, self._limit_bytes)
        except OSError as error:
            log.warning("the timeline %s is not written: %s", self._path, error)

    def close(self) -> None:
        """Note that the process ends, and write everything. Idempotent."""
        if self._thread is None:
            return
        self._closing.set()
        self._thread.join()
        self._thread = None
        self._note({"what": None})
        self.flush()

    def _note(self, line: dict[str, Any]) -> None:
        with self._lock:
            self._pending.append({"t": self._stamp(), **line})

    def _stamp(self) -> float:
        return round(self._now(), 4)

    def _run(self) -> None:
        while not self._closing.wait(FLUSH_S):
            self.flush()


def _cut_middle(path: Path, limit_bytes: int) -> None:
    """Keep the beginning and the end of a file, with a line between them that says so."""
    lines = path.read_bytes().splitlines(keepends=True)
    head = _fitting(lines, int(_HEAD_SHARE * limit_bytes))
    tail = _fitting(lines[::-1], int(_TAIL_SHARE * limit_bytes))[::-1]
    # The line after the head gives the moment from which nothing is kept.
    gap = encode_line({"t": _moment(lines[len(head)]), "what": None})
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(b"".join([*head, gap, *tail]))
    os.replace(temporary, path)


def _fitting(lines: list[bytes], limit_bytes: int) -> list[bytes]:
    """The longest run of lines from the start that fits."""
    size = 0
    for count, line in enumerate(lines):
        size += len(line)
        if size > limit_bytes:
            return lines[:count]
    return lines


def _moment(line: bytes) -> float:
    return float(json.loads(line)["t"])


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in which a process did one thing; Unix seconds."""

    start_s: float
    end_s: float
    what: str
    of: str = ""


def read_timeline(path: Path) -> list[Span]:
    """The spans of one process, oldest first; empty for a file that is not there."""
    spans: list[Span] = []
    doing: tuple[float, str, str] | None = None
    last_s = 0.0
    for line in read_lines(path):
        moment = line.get("t")
        if not isinstance(moment, int | float) or not math.isfinite(moment):
            continue
        if "what" in line:
            # A process that was killed did not say when it ended: its last sign of life is what is known.
            end_s = last_s if line["what"] == "start" else moment
            if doing is not None and end_s > doing[0]:
                spans.append(Span(doing[0], end_s, doing[1], doing[2]))
            doing = (moment, line["what"], str(line.get("of", ""))) if line["what"] is not None else None
        last_s = moment
    if doing is not None and last_s > doing[0]:
        spans.append(Span(doing[0], last_s, doing[1], doing[2]))
    return spans
