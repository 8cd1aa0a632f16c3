"""What is asked in a forked process ends with its limits and with its parent, and in a jail it reaches nothing."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tasks.limited import call_limited, can_jail

ENDLESS = """
import os, time
from tasks.limited import call_limited

def spin():
    print(os.getpid(), flush=True)
    while True:
        time.sleep(0.01)

call_limited(spin, 60.0, 2**28)
"""


def test_the_answer_is_a_number() -> None:
    assert call_limited(lambda: 0.25, 5.0, 2**28) == 0.25


def test_a_question_ends_with_the_process_that_asked_it() -> None:
    with subprocess.Popen([sys.executable, "-c", ENDLESS], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    deadline = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the question outlives its asker"
        time.sleep(0.01)


def test_a_question_has_little_more_processor_time_than_wall_time() -> None:
    assert call_limited(lambda: resource.getrlimit(resource.RLIMIT_CPU)[0], 2.5, 2**28) == 4


@pytest.mark.skipif(not can_jail(), reason="no filter of system calls for this machine")
def test_in_the_jail_one_may_compute_and_read_but_not_reach_out(tmp_path: Path) -> None:
    def ask(question: Callable[[], object]) -> float:
        def is_refused() -> float:
            try:
                question()
            except PermissionError:
                return 1.0
            return 0.5

        return call_limited(is_refused, 10.0, 2**28, is_jailed=True)

    parent = os.getpid()
    assert ask(lambda: Path(__file__).read_text()) == 0.5
    for question in (
        lambda: (tmp_path / "file").write_text("x"),
        lambda: os.kill(parent, 0),
        lambda: os.system("true") == 0 or os.fork(),
        lambda: os.execv(sys.executable, [sys.executable]),
        socket.socket,
        lambda: os.rename(__file__, __file__ + "x"),
        lambda: os.unlink(tmp_path),
    ):
        assert ask(question) == 1.0


@pytest.mark.skipif(not can_jail(), reason="no filter of system calls for this machine")
def test_the_jail_has_no_descriptors_of_its_parent() -> None:
    reading, writing = os.pipe()
    try:
        assert call_limited(lambda: os.write(writing, b"x") / 2, 5.0, 2**28, is_jailed=True) == 0.0
        os.set_blocking(reading, False)
        with pytest.raises(BlockingIOError):
            os.read(reading, 1)
    finally:
        os.close(reading)
        os.close(writing)
