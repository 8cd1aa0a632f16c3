"""A question that may run wild, asked in a forked process with a limit on time and memory."""

from __future__ import annotations

import os
import resource
import select
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def call_limited(question: Callable[[], bool], timeout_s: float, memory_bytes: int) -> bool:
    """The answer of `question`, False when it raises, takes longer than `timeout_s` or more than `memory_bytes` anew.

    A fork costs some milliseconds, and what was imported before is there; the process is killed, not asked, so that
    neither a loop in C nor an endless allocation outlives the limit.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        answer_and_exit(question, writing, memory_bytes)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], timeout_s)
        return bool(ready) and os.read(reading, 1) == b"1"
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def answer_and_exit(question: Callable[[], bool], writing: int, memory_bytes: int) -> None:
    """The forked process: it answers with one byte and ends at once, without cleaning up what belongs to its parent."""
    try:
        limit_memory(memory_bytes)
        os.write(writing, b"1" if question() else b"0")
    except BaseException:  # Whatever it is, it must not run on as a second copy of the parent.
        os._exit(1)
    os._exit(0)


def limit_memory(more_bytes: int) -> None:
    """Room for so many bytes above what is mapped now. Only where /proc tells how much that is."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = mapped + more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
