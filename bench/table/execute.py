"""One run of a plan from its beginning, or from where it was cut off, to its result.

rapid train ──► trained ──► rapid eval over its snapshots ──► result file ──► folder and state deleted
"""

from __future__ import annotations

import ctypes
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

from bench.table.asked import asked
from bench.table.cell import RAPID, Cell
from bench.table.collect import CollectError, collect, is_diverged, last_step
from bench.table.memory import MARK, MemorySampler
from bench.table.state import Life, State, read_state
from telemetry.errors import RunDirectoryError
from telemetry.record import elapsed_s
from telemetry.run_dir import RunDirectory, write_atomically

POLL_S = 0.5
FREE_TIMEOUT_S = 120.0
"""How long a run that was left behind by a killed experiment may take to end, with its checkpoint."""
MAX_FAILURES = 2
_HELD = "schedule.hold_staleness"
_PR_SET_PDEATHSIG = 1
# Found now: between fork and exec little is safe in a process with threads.
_LIBC = ctypes.CDLL(None)


class RunFailure(Exception):
    """A command of a run ended with an error of its own. The text names the log."""


class Interrupted(Exception):
    """The user asked for the end; the run under way was told to end too."""


@dataclass
class Executor:
    """Runs cells.

    Args:
        program: what `rapid` is, such as (python, "-m", "rapid.cli"); tests put a scripted one here.
        is_interrupted: whether the user has asked for the end.
        tell: called with what happens.
    """

    tell: Callable[[str], None]
    is_interrupted: Callable[[], bool] = lambda: False
    program: Sequence[str] = RAPID

    def run(self, cell: Cell) -> dict[str, Any]:
        """Bring a cell to its result. Raises RunFailure, Interrupted."""
        state = self._state_of(cell)
        if not state.is_trained:
            self._train(cell, state)
        self._evaluate(cell, state)
        return self._keep(cell, state)

    def _state_of(self, cell: Cell) -> State:
        """How far it has come. What was begun as another run, or not by an experiment, does not go on as this one."""
        state, now = read_state(cell.state_path), asked(cell)
        if state.asked == now:
            return state
        if cell.run_dir.exists():
            self.tell(f"  {cell.run_dir} was begun with other values than the plan has now: begun anew")
            self._wait_until_free(cell)
        clean_up(cell)
        return State(asked=now)

    # --- training -------------------------------------------------------------------------------------

    def _train(self, cell: Cell, state: State) -> None:
        how = self._prepare(cell, state)
        life = state.begin(how)
        state.write(cell.state_path)
        sampler = MemorySampler(cell.name)
        start = time.monotonic()
        sampler.start()
        try:
            life.status = self._command(
                cell, cell.train_arguments(resume=how == "resumed"), lambda: self._is_over(cell)
            )
        finally:
            life.command_s = round(time.monotonic() - start, 1)
            life.memory = sampler.stop()
            state.write(cell.state_path)
        self._judge(cell, state, life)
        state.is_trained = True
        state.write(cell.state_path)

    def _prepare(self, cell: Cell, state: State) -> str:
        """How the next life begins; deletes what a life without a checkpoint left."""
        if not cell.run_dir.exists():
            return "begun anew" if state.lives else "begun"
        self._wait_until_free(cell)
        # The buffer that holds a lag is empty after a resumption: the first steps would be fresh again.
        if any(cell.run_dir.glob("checkpoints/step-*/learner.json")) and not cell.overrides.get(_HELD):
            return "resumed"
        shutil.rmtree(cell.run_dir)
        return "begun anew"

    def _wait_until_free(self, cell: Cell) -> None:
        deadline = time.monotonic() + FREE_TIMEOUT_S
        while RunDirectory(cell.run_dir).is_in_use():
            if time.monotonic() > deadline:
                raise RunFailure(f"{cell.run_dir} is in use by another `rapid train`: wait for it, or end it")
            if self.is_interrupted():
                raise Interrupted
            time.sleep(POLL_S)

    def _is_over(self, cell: Cell) -> bool:
        """Whether the run has used its wall time."""
        if cell.wall_s is None:
            return False
        try:
            records = RunDirectory.open(cell.run_dir).read_metrics()
        except RunDirectoryError:  # it has not begun yet
            return False
        return bool(records) and elapsed_s(records)[-1] >= cell.wall_s

    def _judge(self, cell: Cell, state: State, life: Life) -> None:
        # A loss that is not finite is a result of the method, and belongs into the table.
        if is_diverged(cell.run_dir):
            return
        if life.status != 0:
            self._fail(cell, state, f"rapid train ended with status {life.status}")
        steps, expected = last_step(cell.run_dir), cell.overrides["schedule.steps"]
        if cell.wall_s is None and steps != expected:
            # Somebody else told it to end, or there were too few prompts. It goes on from there the next time.
            self._fail(cell, state, f"rapid train ended after step {steps} of {expected}")

    def _fail(self, cell: Cell, state: State, what: str) -> NoReturn:
        state.failures += 1
        state.write(cell.state_path)
        raise RunFailure(f"{what}; see {cell.log_path}")

    # --- evaluation and result --------------------------------------------------------------------------

    def _evaluate(self, cell: Cell, state: State) -> None:
        start = time.monotonic()
        status = self._command(cell, cell.eval_arguments(), lambda: False)
        if status != 0:
            self._fail(cell, state, f"rapid eval ended with status {status}")
        state.eval_s = round(state.eval_s + time.monotonic() - start, 1)

    def _keep(self, cell: Cell, state: State) -> dict[str, Any]:
        try:
            result = collect(cell, state, shlex.join(["rapid", *cell.train_arguments(resume=False)]))
        except CollectError as error:
            # What is missing would be missing again: the run has to be repeated.
            shutil.rmtree(cell.run_dir)
            state.is_trained = False
            self._fail(cell, state, str(error))
        cell.result_path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cell.result_path, json.dumps(result, separators=(",", ":")) + "\n")
        clean_up(cell)
        return result

    # --- commands ---------------------------------------------------------------------------------------

    def _command(self, cell: Cell, arguments: list[str], is_over: Callable[[], bool]) -> int:
        """Run a `rapid` command; its exit status. Ends it cleanly when its time is over or the user asks."""
        cell.log_path.parent.mkdir(parents=True, exist_ok=True)
        with cell.log_path.open("ab") as log:
            log.write(f"\n$ rapid {shlex.join(arguments)}\n".encode())
            log.flush()
            process = self._start(cell, arguments, log)
            try:
                return self._wait(process, is_over)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    def _start(self, cell: Cell, arguments: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self.program, *arguments],
            env={**os.environ, MARK: cell.name},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            # Ctrl-C in the terminal reaches this process alone, which passes it on once.
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )

    def _wait(self, process: subprocess.Popen[bytes], is_over: Callable[[], bool]) -> int:
        has_asked = was_interrupted = False
        while True:
            try:
                status = process.wait(POLL_S)
                break
            except subprocess.TimeoutExpired:
                was_interrupted = was_interrupted or self.is_interrupted()
                if not has_asked and (was_interrupted or is_over()):
                    process.send_signal(signal.SIGINT)
                    has_asked = True
        if was_interrupted:
            raise Interrupted
        return status


def _end_with_parent() -> None:
    """In the child: be told as by Ctrl-C when the experiment is killed, so that no run goes on unseen."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGINT)


def clean_up(cell: Cell) -> None:
    """Delete the run's folder, its log and its state; the state last, so that an interruption here repeats this."""
    shutil.rmtree(cell.run_dir, ignore_errors=True)
    for path in (cell.log_path, cell.state_path):
        path.unlink(missing_ok=True)


def tail(path: Path, lines: int = 5) -> str:
    """The last lines of a log."""
    try:
        return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""
