"""Priority of a process on its machine's cores."""

from __future__ import annotations

import contextlib
import os

import psutil


def give_way(niceness: int) -> None:
    """Lower this process and its descendants, with all their threads, to this niceness (0 is usual, 19 the lowest).

    Linux keeps a niceness for each thread, and a new thread takes that of its maker: `os.nice` alone would leave the
    threads that are there already, such as those that compute, as they were.
    """
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        # Whatever ended meanwhile needs no priority.
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            for thread in process.threads():
                os.setpriority(os.PRIO_PROCESS, thread.id, niceness)
