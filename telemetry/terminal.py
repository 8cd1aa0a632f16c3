"""A terminal taken over for a while: its second screen, keys one by one, and everything put back at the end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

from rich.console import Console
from rich.text import Text

from telemetry.keys import KeyReader

# The second screen, no cursor, no wrapping at the right edge; and the way back.
_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_ESCAPE_S = 0.05


class Terminal:
    """Shows frames and reads keys. Build it with `open_terminal`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._encoding = sys.stdout.encoding or "utf-8"
        self._keys = KeyReader()
        self._wake_in, self._wake_out = os.pipe()
        for end in (self._wake_in, self._wake_out):
            os.set_blocking(end, False)
        self._before: list[Any] | None = None

    def wake(self) -> None:
        """Let `wait_for_keys` return; from any thread, or from a handler of signals."""
        with contextlib.suppress(OSError):  # Full: it will wake up anyhow. Closed: nobody sleeps any more.
            os.write(self._wake_out, b"!")

    def size(self) -> tuple[int, int]:
        """Columns and lines at this moment."""
        try:
            size = os.get_terminal_size(self._out)
        except OSError:
            return 80, 24
        return size.columns or 80, size.lines or 24

    def show(self, lines: Sequence[Text]) -> None:
        """Put these lines on the screen, and nothing else."""
        width, height = self.size()
        self._console.size = (width, height)  # type: ignore[assignment]
        with self._console.capture() as capture:
            self._console.print(Text("\n").join(lines[:height]), end="", soft_wrap=True)
        text = capture.get().replace("\n", "\r\n")
        # Lines are as wide as the screen, so that only what lies below can be left over. After the last line of the
        # screen the cursor stands on its last character, which erasing would take away.
        below = "\r\n\x1b[J" if len(lines) < height else ""
        self._write(f"\x1b[H{text}\x1b[0m{below}")

    def wait_for_keys(self, timeout_s: float) -> list[str]:
        """The keys pressed until now, or within this time; empty also when woken."""
        ready, _, _ = select.select([self._in, self._wake_in], [], [], max(timeout_s, 0.0))
        if self._wake_in in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_in, 1024)
        if self._in not in ready:
            return []
        data = os.read(self._in, 1024)
        if not data:
            raise EOFError("the terminal is gone")
        keys = self._keys.feed(data)
        if self._keys.is_within_key and not select.select([self._in], [], [], _ESCAPE_S)[0]:
            keys += self._keys.flush()
        return keys

    def enter(self) -> None:
        """Take the terminal over."""
        self._before = termios.tcgetattr(self._in)
        # Not raw: Ctrl-C and Ctrl-Z go on to work.
        tty.setcbreak(self._in, termios.TCSADRAIN)
        self._write(_ENTER)

    def leave(self) -> None:
        """Put it back as it was. Idempotent."""
        if self._before is not None:
            with contextlib.suppress(termios.error, OSError):  # The terminal may be gone by now.
                termios.tcsetattr(self._in, termios.TCSADRAIN, self._before)
                self._write(_LEAVE)
            self._before = None

    def close(self) -> None:
        """Give back what waking takes."""
        for end in (self._wake_in, self._wake_out):
            os.close(end)

    def _write(self, text: str) -> None:
        data = text.encode(self._encoding, "replace")
        while data:
            data = data[os.write(self._out, data) :]


@contextlib.contextmanager
def open_terminal(console: Console) -> Iterator[Terminal]:
    """Take the terminal of standard input and output over, until the block is left, in whatever way.

    Also when the process is told to end (SIGTERM, SIGHUP), and while it is stopped with Ctrl-Z.
    """
    terminal = Terminal(console)

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def stop(number: int, frame: FrameType | None) -> None:
        terminal.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        terminal.enter()
        terminal.wake()

    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {
        signal.SIGTERM: end,
        signal.SIGHUP: end,
        signal.SIGTSTP: stop,
        signal.SIGWINCH: lambda number, frame: terminal.wake(),
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        terminal.enter()
        yield terminal
    finally:
        terminal.leave()
        for number, handler in before.items():
            signal.signal(number, handler)
        terminal.close()


def is_interactive() -> bool:
    """Whether there is a terminal to read keys from and to draw on."""
    try:
        is_tty = sys.stdin.isatty() and sys.stdout.isatty()
    except ValueError:  # One of them is closed.
        return False
    return is_tty and os.environ.get("TERM", "dumb") != "dumb"
