"""Forks a fresh judge and a fresh candidate for each check, from a Python that has imported already.

Pairs wait in store, locked in and ready, so that a check begins at once. A pair serves one check and is killed, and as
its processes can start no others and write nowhere, nothing of it is left.

    to the parent     "ready", the pair's number, and a socket to its judge: when a pair stands ready
    from the parent   the number of a pair that is to end; the end of the stream ends everything
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from . import candidate, judge, values
from .jail import Limits, die_with_parent, enter
from .modules import MODULES
from .privileges import drop_privileges
from .seccomp import build_filter


class Zygote:
    """The pairs, and the socket to the parent."""

    def __init__(self, control: socket.socket, limits: Limits, spares: int, call_filter: bytes) -> None:
        self._control, self._limits, self._spares, self._call_filter = control, limits, spares, call_filter
        self._pairs: dict[int, tuple[int, int]] = {}
        self._next = 0

    def serve(self) -> None:
        """Until the parent closes its end."""
        for _ in range(self._spares):
            self._start_pair()
        while message := self._control.recv(64):
            self._end_pair(int(message))
            self._start_pair()

    def _start_pair(self) -> None:
        number, self._next = self._next, self._next + 1
        ours, theirs = socket.socketpair()
        left, right = socket.socketpair()
        read_end, write_end = os.pipe()
        # Nobody reads it: when the pipe is full, printing fails.
        os.set_blocking(write_end, False)
        pids = (
            self._fork([theirs.fileno(), left.fileno(), read_end], None, judge.serve),
            self._fork([right.fileno()], write_end, candidate.serve),
        )
        self._pairs[number] = pids
        ready = array.array("i", [ours.fileno()])
        self._control.sendmsg([b"ready %d" % number], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ready)])
        for end in (ours, theirs, left, right):
            end.close()
        os.close(read_end)
        os.close(write_end)

    def _fork(self, fds: list[int], output: int | None, serve: Callable[[], Any]) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            for stream in (1, 2):
                if output is not None:
                    os.dup2(output, stream)
            enter(self._limits, fds, self._call_filter)
            serve()
        finally:
            # Not sys.exit: nothing of the zygote's is to be run down in its child.
            os._exit(0)

    def _end_pair(self, number: int) -> None:
        for pid in self._pairs.pop(number):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def load_modules(packages: list[str]) -> None:
    """Imports once what would otherwise be imported in each check. numpy may be missing."""
    sys.path += packages
    for name in MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    values.use_numpy(sys.modules.get("numpy"))
    del sys.path[len(sys.path) - len(packages) :]


def main(control_fd: int, settings: dict[str, Any]) -> None:
    """Serves the parent on the socket `control_fd`. What fails at the start is told there, as a line of text."""
    die_with_parent()
    control = socket.socket(fileno=control_fd)
    try:
        load_modules(settings["packages"])
        notes = [] if settings["contained"] else drop_privileges()
        control.send(("notes " + "; ".join(notes)).encode())
        # From now on nobody reads what is written there, and a pipe that is full would stop every judge that warns.
        os.dup2(1, 2)
        gc.collect()
        gc.freeze()
        limits = Limits(settings["time_s"], settings["memory_mib"])
        call_filter = build_filter(platform.machine(), may_read_files=settings["contained"])
        Zygote(control, limits, settings["spares"], call_filter).serve()
    except BrokenPipeError:
        pass  # The parent has gone.
    except BaseException as error:  # The parent turns it into an error of its own.
        with contextlib.suppress(OSError):
            control.send(f"broken {type(error).__name__}: {error}".encode()[:2000])
