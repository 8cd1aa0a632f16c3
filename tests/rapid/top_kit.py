"""`rapid top` as a process: in a pipe, and in a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable

import pytest

COMMAND = [sys.executable, "-m", "rapid.cli", "top"]


ENVIRONMENT = {**{k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}, "TERM": "xterm"}


def rapid_top(*arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=timeout_s, env=ENVIRONMENT, check=False
    )


def _become_a_terminals() -> None:
    """Between fork and exec: take the terminal, and hear Ctrl-C, which a test-suite in the background does not."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Screen:
    """`rapid top` in a terminal of its own, with what it drew so far."""

    def __init__(self, address: str, width: int = 80, height: int = 24) -> None:
        self._main, self.terminal = pty.openpty()
        self.resize(width, height)
        self.before = termios.tcgetattr(self.terminal)
        self._bytes = b""
        self.process = subprocess.Popen(
            [*COMMAND, address, "--refresh", "0.2"],
            stdin=self.terminal,
            stdout=self.terminal,
            stderr=self.terminal,
            env=ENVIRONMENT,
            start_new_session=True,
            preexec_fn=_become_a_terminals,
        )

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self._main, keys)

    @property
    def drawn(self) -> str:
        """All that it has written; a character that has come by half is left out."""
        return self._bytes.decode(errors="ignore")

    def frame(self) -> str:
        """The last whole frame, without colours."""
        text = next((frame for frame in reversed(self.drawn.split("\x1b[H")) if "╰" in frame), "")
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")

    def read_until(self, wanted: str) -> str:
        """Read what is drawn until a whole frame holds this; that frame."""
        return self.read_while(lambda frame: wanted not in frame, f"no {wanted!r}")

    def read_while(self, is_unwanted: Callable[[str], bool], failure: str) -> str:
        """Read what is drawn until there is a whole frame that is wanted; that frame."""
        deadline = time.monotonic() + 30
        while is_unwanted(self.frame()):
            self._read(deadline, f"{failure}:\n{self.frame() or self.drawn}")
        return self.frame()

    def finish(self, timeout_s: float = 20.0) -> int:
        """Read to the end; the exit status."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            self._read(deadline, "it does not end", may_be_empty=True)
        while select.select([self._main], [], [], 0.2)[0]:
            self._bytes += os.read(self._main, 65536)
        return self.process.returncode

    def _read(self, deadline: float, failure: str, *, may_be_empty: bool = False) -> None:
        if time.monotonic() > deadline:
            pytest.fail(failure)
        if select.select([self._main], [], [], 0.1)[0]:
            self._bytes += os.read(self._main, 65536)
        elif self.process.poll() is not None and not may_be_empty:
            pytest.fail(f"it ended with {self.process.returncode}: {self.drawn}")

    def assert_restored(self) -> None:
        """Modes, cursor, wrapping and first screen are as they were."""
        assert termios.tcgetattr(self.terminal) == self.before
        left = self.drawn.rpartition("\x1b[?1049h")[2]
        assert left.rstrip().endswith("\x1b[?7h\x1b[?25h\x1b[?1049l")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._main)
        os.close(self.terminal)
