"""One reward worker seen from its parent: start it, give it a job, notice when it hangs or dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from tasks.build import Split
from tasks.config import TaskConfig
from tasks.errors import TaskError
from tasks.task import Outcome
from tasks.worker import timed_out

# Importing and loading a data set; a worker that takes longer will not come.
START_TIMEOUT_S = 300.0
# The worker stops asynchronous rewards by itself at the limit; only then is it killed.
GRACE_S = 0.25
# The end of a dead worker's socket may live on in processes forked from ours, so its death is looked for, too.
LOOK_EVERY_S = 0.2
COMMAND = "import sys; from tasks.worker import main; main(int(sys.argv[1]), int(sys.argv[2]))"


class WorkerDiedError(Exception):
    """The worker process ended; the text says how."""


class Link:
    """A running worker process and our end of the socket to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self._connection = Connection(ours.detach())
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, str(theirs.fileno()), str(os.getpid())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # so that what a reward function started is killed with it
                env=worker_environment(),
            )

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def send(self, message: Any) -> None:
        """Raises WorkerDiedError."""
        try:
            self._connection.send(message)
        except OSError:
            raise self._death() from None

    def receive(self, timeout_s: float) -> Any:
        """The next message. Raises TimeoutError or WorkerDiedError."""
        deadline = time.monotonic() + timeout_s
        while not self._connection.poll(max(0.0, min(LOOK_EVERY_S, deadline - time.monotonic()))):
            if not self.is_alive and not self._connection.poll(0):
                raise self._death()
            if time.monotonic() >= deadline:
                raise TimeoutError
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            raise self._death() from None

    def _death(self) -> WorkerDiedError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1.0)
        code = self._process.returncode
        if code is not None and code < 0:
            return WorkerDiedError(f"was killed by {signal.Signals(-code).name}")
        return WorkerDiedError(f"ended with status {code}")

    def kill(self) -> None:
        """Ends the process and all that it started; whoever waits in `receive` gets WorkerDiedError."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def release(self) -> None:
        """Frees the socket and the process entry. Only by the thread that uses the link."""
        self.kill()
        self._process.wait()
        self._connection.close()


class WorkerProcess:
    """A reward worker, restarted whenever it had to be killed. Blocking; jobs are given by one thread at a time."""

    def __init__(self, config: TaskConfig, timeout_s: float, split: Split) -> None:
        self._order = (config, split, timeout_s)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._is_ready = False
        self._is_closed = False

    def start(self) -> Link | None:
        """Starts the process unless it runs, without waiting for it. None once the worker was closed."""
        with self._lock:
            if self._link is None and not self._is_closed:
                self._link = Link()
                with suppress(WorkerDiedError):  # Noticed when its answer is awaited.
                    self._link.send(self._order)
            return self._link if not self._is_closed else None

    def score(self, index: int, completions: list[str], *, all_or_nothing: bool) -> list[Outcome]:
        """An outcome for each completion, in order. Raises TaskError when the worker cannot build the task.

        Args:
            all_or_nothing: once the process had to be ended, the completions that it had not judged fail unjudged:
                each that hangs would cost `timeout_s` again.
        """
        outcomes: dict[int, Outcome] = {}
        rest = Outcome(None, "the reward runner was closed")
        while len(outcomes) < len(completions):
            link = self._ready_link()
            if link is None:
                break
            missing = [position for position in range(len(completions)) if position not in outcomes]
            had_to_end = not self._score_missing(link, index, completions, missing, outcomes)
            if had_to_end and all_or_nothing:
                rest = Outcome(None, "not judged, for another completion of its group had failed")
                break
        return [outcomes.get(position, rest) for position in range(len(completions))]

    def _score_missing(
        self, link: Link, index: int, completions: list[str], missing: list[int], outcomes: dict[int, Outcome]
    ) -> bool:
        """Adds the missing outcomes, or some and one failure, and returns False, when the worker had to be ended."""
        try:
            link.send((index, [completions[position] for position in missing]))
            for _ in missing:
                place, outcome = link.receive(self._timeout_s + GRACE_S)
                outcomes[missing[place]] = outcome
            return True
        except TimeoutError:
            reason = f"{timed_out(self._timeout_s)}; its process was killed"
        except WorkerDiedError as error:
            reason = f"the reward function ended its process, which {error}"
        self._drop()
        if not self._is_closed:
            # Plain reward functions run in order, so the first without an outcome was running. Of asynchronous ones
            # the culprit is unknown; as every attempt costs one completion, this comes to an end all the same.
            culprit = next(position for position in missing if position not in outcomes)
            outcomes[culprit] = Outcome(None, reason)
        return False

    def _ready_link(self) -> Link | None:
        """A link to a worker that has built the task. None once the worker was closed."""
        if self._is_ready and self._link is not None and not self._link.is_alive:
            self._drop()  # It died while it had nothing to do, which is no reward function's fault.
        link = self.start()
        if link is None or self._is_ready:
            return link
        try:
            state, reason = link.receive(START_TIMEOUT_S)
        except TimeoutError:
            state, reason = "broken", f"its process was not ready after {START_TIMEOUT_S:g} s"
        except WorkerDiedError as error:
            state, reason = "broken", f"its process {error}"
        if state == "broken":
            self._drop()
            if self._is_closed:
                return None
            raise TaskError(f"a reward worker could not build the task: {reason}")
        self._is_ready = True
        return link

    def _drop(self) -> None:
        with self._lock:
            link, self._link, self._is_ready = self._link, None, False
        if link is not None:
            link.release()

    def close(self) -> None:
        """Kills the process for good. From any thread; a job that another thread waits for comes back with failures."""
        with self._lock:
            self._is_closed = True
            if self._link is not None:
                self._link.kill()

    def release(self) -> None:
        """Frees what a closed worker still holds, once no thread uses it."""
        self._drop()


def worker_environment() -> dict[str, str]:
    """Ours, with our module path, and without threads that would take the cores of generation and training."""
    path = [entry or os.getcwd() for entry in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
