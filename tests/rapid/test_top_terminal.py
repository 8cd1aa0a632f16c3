"""`rapid top` in a terminal: keys, sizes, signals, and a terminal that is put back whatever happens."""

from __future__ import annotations

import contextlib
import signal
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.rapid.served_run import ServedRun, serve_run
from tests.rapid.top_kit import Screen


@pytest.fixture
def screen(served: ServedRun) -> Iterator[Screen]:
    """A terminal of 80 × 24 that shows the served run."""
    with contextlib.closing(Screen(served.address)) as opened:
        opened.read_until("q quit")
        yield opened


def test_keys_sort_pause_explain_and_quit(served: ServedRun, screen: Screen) -> None:
    frame = screen.read_until("part ▲")
    assert {len(line) for line in frame.splitlines() if line} == {80}
    assert len(frame.splitlines()) <= 24
    assert not termios.tcgetattr(screen.terminal)[3] & termios.ECHO
    served.train()
    screen.read_until("4/20")
    screen.press(b"s")
    screen.read_until("▼tokens/s")
    screen.press(b"r")
    screen.read_until("▲tokens/s")
    screen.press(b"?")
    screen.read_until("this help; any key leaves it")
    screen.press(b"x")
    screen.read_until("▲tokens/s")
    screen.press(b"p")
    screen.read_until("paused")
    served.train()
    time.sleep(1)
    screen.press(b"s")
    assert "4/20" in screen.read_until("▲behind")
    screen.press(b"p")
    screen.read_until("5/20")
    screen.press(b"q")
    assert screen.finish() == 0
    screen.assert_restored()


def test_actors_that_do_not_fit_are_scrolled_with_the_arrow_keys(served: ServedRun, screen: Screen) -> None:
    for number in range(1, 40):
        served.join(f"actor-{number}")
    assert "state · 1–" in screen.read_until("of 40")
    screen.press(b"\x1b[B")
    screen.read_until("state · 2–")
    # A sequence that a slow line cuts in two is one key all the same.
    screen.press(b"\x1b")
    screen.press(b"[F")
    screen.read_until("actor-39")
    screen.press(b"\x1b[H")
    screen.read_until("state · 1–")


def test_another_size_of_the_terminal_gives_another_frame(screen: Screen) -> None:
    screen.resize(120, 40)
    screen.process.send_signal(signal.SIGWINCH)
    frame = screen.read_until("host")
    assert {len(line) for line in frame.splitlines() if line} == {120}
    screen.resize(50, 10)
    screen.process.send_signal(signal.SIGWINCH)
    frame = screen.read_while(lambda frame: {len(line) for line in frame.splitlines() if line} != {50}, "no 50 columns")
    assert len(frame.splitlines()) <= 10


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=lambda x: str(x)
)
def test_the_terminal_is_put_back_whatever_ends_it(screen: Screen, number: signal.Signals, status: int) -> None:
    screen.process.send_signal(number)
    assert screen.finish() == status
    screen.assert_restored()


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(screen: Screen) -> None:
    screen.process.send_signal(signal.SIGTSTP)
    process, deadline = psutil.Process(screen.process.pid), time.monotonic() + 60
    # It stops itself once the terminal is back; what tells it to go on before that would be lost.
    while process.status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert termios.tcgetattr(screen.terminal) == screen.before
    screen.process.send_signal(signal.SIGCONT)
    while termios.tcgetattr(screen.terminal) == screen.before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    screen.press(b"q")
    assert screen.finish() == 0
    screen.assert_restored()


def test_a_hub_that_falls_silent_is_told_and_an_error_leaves_the_terminal_clean(tmp_path: Path) -> None:
    with serve_run() as run:
        run.train(2)
        screen = Screen(run.address)
        screen.read_until("2/20")
    with contextlib.closing(screen):
        frame = screen.read_until("no answer for")
        assert "2/20" in frame
        assert "✗ silent" in frame
        screen.press(b"q")
        assert screen.finish() == 0
        screen.assert_restored()
