"""Checks programs against tests, in processes that neither reach this machine nor the verdict."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from tasks.errors import TaskError
from tasks.sandbox.box.jail import Limits
from tasks.sandbox.box.wire import HEADER_BYTES
from tasks.sandbox.suite import Suite, build_suite
from tasks.sandbox.ways import Way, WayName, choose

START_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 20.0
VERDICT_BYTES = 4096
# Pairs in store: while one is checked, the last one is cleared away and the next one is made ready.
SPARES = 2
PROGRAM = "import sys, json; sys.path.append(sys.argv[1]); from box.zygote import main; " + (
    "main(int(sys.argv[2]), json.loads(sys.argv[3]))"
)
# Nothing of ours: what is in our environment may be a secret. The seed makes the order of sets, and with it a verdict,
# the same each time.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "LC_ALL": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


class SandboxError(Exception):
    """The sandbox itself failed, so that there is no verdict. Not the checked program's fault; try again."""


@dataclass(frozen=True)
class Verdict:
    """What came of a check."""

    passed: bool
    reason: str = ""
    """Why not, in a line; empty if passed. May quote the program, so it is nothing to act on."""


class Sandbox:
    """A warm sandbox: a check takes milliseconds, as its processes stand ready.

    Starts when it is first used, starts again when it has failed, and ends with its owner, however that ends. For one
    thread; the kernel ends the sandbox with the thread that used it first.
    """

    def __init__(self, limits: Limits | None = None, way: WayName = "auto") -> None:
        """Raises TaskError when that way of sandboxing does not work on this machine."""
        self.limits = limits or Limits()
        self.way: Way = choose(way)
        self._running: Zygote | None = None

    def check(self, program: str, suite: Suite) -> Verdict:
        """Whether `program` passes the tests. Raises SandboxError."""
        if self._running is None:
            self._running = Zygote(self.way, self.limits)
        try:
            number, judge = self._running.take_pair()
            with judge:
                verdict = ask(judge, program, suite, self.limits.wall_s)
            self._running.end_pair(number)
        except BaseException:  # Ctrl-C, too: no process may be left.
            # Whatever it was, that pair is not to be used again.
            self.close()
            raise
        return verdict

    @property
    def notes(self) -> str:
        """What the running sandbox could not give up. Empty if nothing, or if it does not run."""
        return self._running.notes if self._running is not None else ""

    def close(self) -> None:
        """Ends all processes of the sandbox."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def try_sandbox(wanted: WayName) -> list[str]:
    """Starts a sandbox and ends it again. Returns what it does not contain.

    Raises TaskError when there is none on this machine, with the reason.
    """
    suite = build_suite("assert double(4) == 8", ("double",))
    with Sandbox(way=wanted) as sandbox:
        try:
            verdict = sandbox.check("def double(x): return 2 * x", suite)
        except SandboxError as error:
            raise TaskError(f"generated code cannot be sandboxed here: {error}") from None
        if not verdict.passed:
            raise TaskError(f"generated code cannot be sandboxed here: a right program failed, {verdict.reason}")
        notes = sandbox.notes
    return [note for note in (sandbox.way.note, notes) if note]


class Zygote:
    """The process in the sandbox that keeps pairs of judge and candidate ready (see box/zygote.py)."""

    def __init__(self, way: Way, limits: Limits) -> None:
        """Raises SandboxError when it does not start."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        settings = {
            "packages": way.packages(),
            "contained": way.name == "bubblewrap",
            "time_s": limits.time_s,
            "memory_mib": limits.memory_mib,
            "spares": SPARES,
        }
        arguments = ["-c", PROGRAM, way.box_parent(), str(theirs.fileno()), json.dumps(settings)]
        with theirs:
            self._process = subprocess.Popen(
                way.command(arguments),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), **ENVIRONMENT},
            )
        self._end = weakref.finalize(self, end, self._process, self._control)
        self._control.settimeout(START_TIMEOUT_S)
        self.notes = self._receive_notes()
        self._control.settimeout(READY_TIMEOUT_S)

    def _receive_notes(self) -> str:
        """What the sandbox could not be given."""
        try:
            kind, _, text = self._control.recv(4096).decode().partition(" ")
        except OSError as error:
            kind, text = "broken", str(error)
        if kind == "notes":
            return text
        kill(self._process)
        said = self._process.stderr.read().decode(errors="replace") if self._process.stderr else ""
        self.close()
        raise SandboxError(f"the sandbox did not start: {text or said.strip()[-500:]}")

    def take_pair(self) -> tuple[int, socket.socket]:
        """A fresh pair's number and the socket to its judge. Raises SandboxError."""
        try:
            message, fds, _, _ = socket.recv_fds(self._control, 64, 1)
        except OSError as error:
            raise SandboxError(f"the sandbox made no process ready: {error}") from None
        if not message.startswith(b"ready ") or len(fds) != 1:
            raise SandboxError(f"the sandbox ended: {message.decode(errors='replace')}")
        return int(message.removeprefix(b"ready ")), socket.socket(fileno=fds[0])

    def end_pair(self, number: int) -> None:
        """Has the pair killed and another one made ready, without waiting for it. Raises SandboxError."""
        try:
            self._control.send(str(number).encode())
        except OSError as error:
            raise SandboxError(f"the sandbox ended: {error}") from None

    def close(self) -> None:
        self._end()


def ask(judge: socket.socket, program: str, suite: Suite, wall_s: float) -> Verdict:
    """Hands the program to the judge and waits for the verdict, for `wall_s` seconds."""
    deadline = time.monotonic() + wall_s
    try:
        source = program.encode()
    except UnicodeEncodeError as error:  # A lone surrogate.
        return Verdict(False, f"the program is no text: {error}")
    try:
        for part in (suite.job, source):
            judge.settimeout(max(1e-3, deadline - time.monotonic()))
            judge.sendall(len(part).to_bytes(HEADER_BYTES, "big") + part)
        answer = json.loads(receive(judge, deadline))
    except TimeoutError:
        return Verdict(False, f"took longer than {wall_s:g} s")
    except (OSError, EOFError, ValueError):
        # The judge has died, of memory or time, over what it was given.
        return Verdict(False, "the tests ended without a verdict")
    return Verdict(answer["passed"] is True, str(answer["reason"]))


def receive(judge: socket.socket, deadline: float) -> bytes:
    """The judge's one message. Raises TimeoutError, EOFError or OSError."""
    data = b""
    while len(data) < HEADER_BYTES or len(data) < HEADER_BYTES + int.from_bytes(data[:HEADER_BYTES], "big"):
        judge.settimeout(max(1e-3, deadline - time.monotonic()))
        part = judge.recv(VERDICT_BYTES)
        if not part:
            raise EOFError
        data += part
    return data[HEADER_BYTES:]


def end(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    """Kills the sandbox: with bubblewrap, or with the zygote, the kernel kills all that they started."""
    control.close()
    kill(process)
    process.wait()
    if process.stderr is not None:
        process.stderr.close()


def kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
