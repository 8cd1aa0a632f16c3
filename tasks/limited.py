"""A question that may run wild, asked in a forked process with a limit on time and memory."""

from __future__ import annotations

import math
import os
import platform
import resource
import select
import signal
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

from tasks.sandbox.box.jail import FIRST_FD, die_with_parent, keep_only
from tasks.sandbox.box.seccomp import ARCHITECTURES, build_filter, install, libc

ANSWER = struct.Struct("=d")


def call_limited(
    question: Callable[[], float], timeout_s: float, memory_bytes: int, *, is_jailed: bool = False
) -> float:
    """The answer of `question`, 0 when it raises, takes longer than `timeout_s` or more than `memory_bytes` anew.

    A fork costs some milliseconds, and what was imported before is there; the process is killed, not asked, so that
    neither a loop in C nor an endless allocation outlives the limit. `is_jailed`: it can read files and compute, and
    nothing else: neither write, nor connect, nor start, signal or trace a process. Only where `can_jail`.
    """
    call_filter = build_jail() if is_jailed else None
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        answer_and_exit(question, parent, writing, timeout_s, memory_bytes, call_filter)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], timeout_s)
        answer = os.read(reading, ANSWER.size) if ready else b""
        return float(ANSWER.unpack(answer)[0]) if len(answer) == ANSWER.size else 0.0
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def can_jail() -> bool:
    """Whether there is a filter of system calls for this machine."""
    return sys.platform == "linux" and platform.machine() in ARCHITECTURES


@cache
def build_jail() -> bytes:
    """Files may be read, because libraries import parts of themselves when these are first used."""
    libc()
    return build_filter(platform.machine(), may_read_files=True)


def answer_and_exit(
    question: Callable[[], float],
    parent: int,
    writing: int,
    timeout_s: float,
    memory_bytes: int,
    call_filter: bytes | None,
) -> None:
    """The forked process: it answers with one number and ends at once, without cleaning up what is its parent's."""
    try:
        end_with(parent)
        limit_memory(memory_bytes)
        # For when nobody is left to kill it: the parent's limit is of wall time.
        limit_soft(resource.RLIMIT_CPU, math.ceil(timeout_s) + 1)
        if call_filter is not None:
            writing = lock_in(writing, call_filter)
        os.write(writing, ANSWER.pack(question()))
    except BaseException:  # Whatever it is, it must not run on as a second copy of the parent.
        os._exit(1)
    os._exit(0)


def end_with(parent: int) -> None:
    """The kernel kills this process when the parent's thread ends. It may have ended before that was asked for."""
    if sys.platform == "linux":
        die_with_parent()
    if os.getppid() != parent:
        os._exit(1)


def lock_in(writing: int, call_filter: bytes) -> int:
    """Gives up all descriptors but the pipe's end, which is returned, and all system calls that reach out."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    keep_only([writing])
    install(call_filter)
    return FIRST_FD


def limit_memory(more_bytes: int) -> None:
    """Room for so many bytes above what is mapped now. Only where /proc tells how much that is."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        mapped = int(statm.read_text().split()[0]) * resource.getpagesize()
        limit_soft(resource.RLIMIT_AS, mapped + more_bytes)


def limit_soft(kind: int, value: int) -> None:
    """Lowers a limit of this process."""
    _, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
