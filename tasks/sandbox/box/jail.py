"""What a forked process gives up before it runs anything that a check brought along. There is no way back."""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
from dataclasses import dataclass

from .seccomp import install, libc

PR_SET_PDEATHSIG = 1
OPEN_FILES = 32
FIRST_FD = 3


@dataclass(frozen=True)
class Limits:
    """What one check may use. The judge and the candidate have these limits each."""

    time_s: float = 3.0
    """Processor time in seconds, rounded up to whole ones. Not wall time: then a verdict would depend on what else the
    machine does, and learner and engine may leave a check little of it."""
    memory_mib: int = 512
    """Address space, of which Python and numpy take about 200 MiB."""

    @property
    def wall_s(self) -> float:
        """Wall time in seconds from handing in the program to the verdict, for programs that wait."""
        return max(3 * self.time_s, 5.0)


def die_with_parent() -> None:
    """The kernel kills this process when the thread that started it ends."""
    libc().prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)


def keep_only(fds: list[int]) -> None:
    """Closes all descriptors but 0 to 2 and `fds`, which become 3, 4, and so on."""
    high = [os.dup2(fd, 100 + position) for position, fd in enumerate(fds)]
    for position, fd in enumerate(high):
        os.dup2(fd, FIRST_FD + position)
    os.closerange(FIRST_FD + len(fds), os.sysconf("SC_OPEN_MAX"))


def limit(limits: Limits) -> None:
    """Resource limits of this process. With no other process to start, they are those of the whole check."""
    seconds = math.ceil(limits.time_s)
    memory = limits.memory_mib * 2**20
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
    ):
        resource.setrlimit(kind, (value, value))


def enter(limits: Limits, fds: list[int], call_filter: bytes) -> None:
    """Locks this process in, with a filter of `seccomp.build_filter`. Raises OSError when it cannot be."""
    die_with_parent()
    keep_only(fds)
    limit(limits)
    install(call_filter)
