"""`rapid top` on a real hub without engines: what it prints, what it refuses, and what it does in a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
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
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocol.messages import Status
from rapid.errors import UsageError
from rapid.feed import Feed
from rapid.locate import connect, find, reach
from rapid.source import RunSource
from telemetry.run_dir import RunDirectory, locked
from tests.rapid.served_run import B, ServedRun, serve_run
from tests.telemetry.fakes import make_record

COMMAND = [sys.executable, "-m", "rapid.cli", "top"]
ENVIRONMENT = {**{k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}, "TERM": "xterm"}


def rapid_top(*arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=timeout_s, env=ENVIRONMENT, check=False
    )


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedRun]:
    """A run that goes on in `tmp_path/trial`, after three steps."""
    with serve_run(tmp_path / "trial") as run:
        run.train(3)
        yield run


# --- one frame, one document ----------------------------------------------------------------------------


def test_once_prints_one_frame_of_80_columns_without_escape_codes(served: ServedRun) -> None:
    served.beat("actor-0", "a lease")
    served.settle()
    done = rapid_top(served.address, "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert {len(line) for line in done.stdout.splitlines()} == {80}
    for wanted in (
        "rapid · trial · async · tiny",
        "3/20",
        "0.10  from 0.10",
        "75 %",
        "● serves 1 actors",
        "○ waits for a lease",
        f"settled {3 * B}  = {3 * B} opened",
        "actor-0 joined from box-b",
        "a checkpoint of step 3 is on the disk",
    ):
        assert wanted in done.stdout


def test_once_as_json_is_one_document_with_what_the_frame_shows(served: ServedRun) -> None:
    done = rapid_top(served.address, "--once", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["state"], told["step"], told["run"]["total_steps"]) == ("running", 3, 20)
    assert told["reward"]["by_step"] == [[1, 0.05], [2, 0.1], [3, 0.15]]
    assert told["lag"]["trained_tokens"] == {"0": 90, "1": 30}
    assert told["ledger"] == {
        "states": {"trained": 3 * B},
        "sum": 3 * B,
        "opened": 3 * B,
        "adds_up": True,
    }
    assert told["tokens_per_s"] == {"actors": 312.0, "learner": 600.0}
    assert [part["name"] for part in told["parts"]] == ["hub", "learner", "actor-0"]
    assert (told["actors"]["there"], told["actors"]["wanted"]) == (1, None)
    assert any(one["text"] == "actor-0 joined from box-b" for one in told["happenings"])


def test_a_run_is_found_by_name_by_folder_by_address_and_as_the_only_one(served: ServedRun, tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "older").write_config({})
    for run in ("trial", str(tmp_path / "trial"), served.address, None):
        with contextlib.closing(RunSource(find(run, tmp_path))) as source:
            assert source.look().step == 3
    with contextlib.closing(reach("trial", tmp_path).client):
        pass


# --- runs that are over, or cannot be reached ---------------------------------------------------------------


def test_a_run_that_is_over_shows_its_last_state(tmp_path: Path) -> None:
    with serve_run(tmp_path / "trial") as run:
        run.train(2)
        RunDirectory.open(tmp_path / "trial").append_metrics(make_record(1))
        RunDirectory.open(tmp_path / "trial").append_metrics(make_record(2, reward_mean=0.75))
    done = rapid_top("trial", "--runs", str(tmp_path), "--once")
    assert (done.returncode, done.stderr) == (0, "")
    assert "over ─╮" in done.stdout
    assert "2/20" in done.stdout
    assert f"trained {2 * B}  = {2 * B} opened" in done.stdout
    told = json.loads(rapid_top("trial", "--runs", str(tmp_path), "--json").stdout)
    assert (told["state"], told["reward"]["by_step"]) == ("over", [[1, 0.25], [2, 0.75]])
    with pytest.raises(UsageError, match="does not go on"):
        reach("trial", tmp_path)


def test_a_run_whose_launcher_was_killed_is_over_although_it_left_its_hubs_address(tmp_path: Path) -> None:
    run_dir = RunDirectory.create(tmp_path / "trial")
    run_dir.write_config({"schedule": {"steps": 20}})
    with run_dir.hub_announced("tcp://127.0.0.1:1"):
        with contextlib.closing(RunSource(find("trial", tmp_path))) as source:
            assert source.look().is_over
        with pytest.raises(UsageError, match=r"Runs that go on in .*: none"):
            find(None, tmp_path)


def test_a_run_that_starts_says_so(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "trial").write_config({"schedule": {"steps": 20}})
    with locked(tmp_path / "trial"), contextlib.closing(RunSource(find("trial", tmp_path))) as source:
        state = source.look()
        assert not state.is_over
        assert "does not listen" in state.phase


@pytest.mark.parametrize(
    ("run", "message"),
    [
        ("tcp://127.0.0.1:1", "its hub at tcp://127.0.0.1:1 does not answer"),
        ("tcp://nowhere", "Expected tcp://host:port"),
        ("nothing", "no such folder"),
    ],
)
def test_what_cannot_be_reached_is_one_clear_line_and_status_2(run: str, message: str, tmp_path: Path) -> None:
    done = rapid_top(run, "--runs", str(tmp_path), "--once")
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


# --- following ----------------------------------------------------------------------------------------------


def test_a_pipe_gets_a_line_at_each_refresh_until_the_run_is_over(tmp_path: Path) -> None:
    command = [*COMMAND, "trial", "--runs", str(tmp_path), "--refresh", "0.1", "--json"]
    with serve_run(tmp_path / "trial") as run:
        run.train()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["step"] == 1
        run.train()
        assert any(json.loads(process.stdout.readline())["step"] == 2 for _ in range(50))
    *_, last = process.stdout.read().splitlines()
    assert json.loads(last)["state"] == "over"
    assert process.wait(20) == 0


def test_a_reader_that_goes_away_ends_it_in_silence(served: ServedRun) -> None:
    process = subprocess.Popen(
        [*COMMAND, served.address, "--refresh", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert b"step  3/20" in process.stdout.readline()
    process.stdout.close()
    assert process.wait(20) == 0
    assert process.stderr.read() == b""


@pytest.mark.parametrize("has_folder", [False, True])
def test_without_metrics_jsonl_the_records_come_from_the_hub_and_each_once(
    served: ServedRun, tmp_path: Path, has_folder: bool
) -> None:
    # As on a launcher that shares no files with the learner, and as with the hub's address alone.
    folder = RunDirectory.open(tmp_path / "trial") if has_folder else None
    with contextlib.closing(connect(served.address)) as client:
        feed = Feed(client, folder)
        assert feed.look()
        assert [record["step"] for record in feed.records()] == [1, 2, 3]
        served.train(2)
        assert feed.look()
        assert feed.look()
        assert [record["step"] for record in feed.records()] == [1, 2, 3, 4, 5]
        answer = feed.ask().result()
        assert isinstance(answer, Status)
        assert (answer.records, answer.num_records) == ([], 5)


def test_where_metrics_jsonl_can_be_read_the_hub_is_not_asked_for_records(served: ServedRun, tmp_path: Path) -> None:
    folder = RunDirectory.open(tmp_path / "trial")
    with contextlib.closing(connect(served.address)) as client:
        feed = Feed(client, folder)
        feed.look()
        assert len(feed.records()) == 3
        folder.append_metrics(make_record(1))
        feed.look()
        assert len(feed.records()) == 1


# --- in a terminal ------------------------------------------------------------------------------------------


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
    screen.read_until("of 40")
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
    deadline = time.monotonic() + 20
    while termios.tcgetattr(screen.terminal) != screen.before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
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
