"""Priority of a process on its machine's cores."""

from __future__ import annotations

import contextlib
import os

import psutil


def give_way(niceness: int) -> None:
    """Raise the niceness of this process and of its descendants by so much, with all their threads.

    By so much and not to so much: where a process begins at a niceness of its own, as workers of a Ray cluster may,
    only root could come back from it. Linux keeps a niceness for each thread, and a new thread takes that of its maker:
    `os.nice` alone would leave the threads that are there already, such as those that compute, as they were.
    """
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        # Whatever ended meanwhile needs no priority.
        with contextlib.suppress(psutil.Error):
            for thread in process.threads():
                with contextlib.suppress(ProcessLookupError):
                    before = os.getpriority(os.PRIO_PROCESS, thread.id)
                    os.setpriority(os.PRIO_PROCESS, thread.id, before + niceness)
