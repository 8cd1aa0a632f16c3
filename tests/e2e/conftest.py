"""Runs of the real system, each in processes of its own, and what is looked at afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from protocol.blocking import BlockingClient
from protocol.status import Inspect, Status
from telemetry.run_dir import RunDirectory

ROOT = Path(__file__).resolve().parents[2]
TINY = "recipes/tiny.toml"
# For all of a run with vLLM, on a machine that is busy with other work.
LIMIT_S = 600.0


def command_line(process: psutil.Process) -> list[str]:
    """Empty when the process has ended, which it may do between two looks at it."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@dataclass
class Run:
    """One `rapid train`, under way or over."""

    folder: Path
    mark: str
    log: Path
    process: subprocess.Popen[bytes] = field(repr=False)

    def records(self) -> list[dict[str, Any]]:
        """metrics.jsonl so far."""
        path = self.folder / "metrics.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait_for_step(self, step: int) -> None:
        """Until this optimizer step is recorded."""
        self.wait_until(lambda: any(record["step"] >= step for record in self.records()), f"step {step}")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Poll; fails with the run's output when the run ends or the time is over before."""
        deadline = time.monotonic() + LIMIT_S
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"no {what}; the run said:\n{self.output()}")
            time.sleep(0.1)

    def finish(self) -> int:
        """Wait for the end; the exit status."""
        try:
            return self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the run does not end; it said:\n{self.output()}")

    def output(self) -> str:
        """What the run printed."""
        return self.log.read_text(errors="replace")

    def interrupt(self) -> None:
        """What Ctrl-C in a terminal does: the whole process group hears of it."""
        os.killpg(self.process.pid, signal.SIGINT)

    def processes(self) -> list[psutil.Process]:
        """All living processes that this run started, adopted ones included: they inherit its mark."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("RAPID_TEST_MARK") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def parts(self, name: str) -> list[psutil.Process]:
        """The processes of a part, by the name that Ray gives it: "HubPart", "LearnerPart", "ActorPart"."""
        found = [process for process in self.processes() if f"ray::{name}" in " ".join(command_line(process))]
        assert found, f"no process of {name} among {[command_line(process)[:2] for process in self.processes()]}"
        return found

    def status(self) -> Status:
        """What its hub says."""
        client = BlockingClient(RunDirectory.open(self.folder).hub_address() or "")
        try:
            status = client.request(Inspect(), 10.0)
        finally:
            client.close()
        assert isinstance(status, Status)
        return status

    def ledger(self) -> str:
        """What `rapid ledger` prints."""
        return rapid("ledger", str(self.folder)).stdout

    def assert_left_nothing(self) -> None:
        """No process of the run lives, and none of its temporary files is there."""
        self.wait_for_no_process()
        assert list(Path(tempfile.gettempdir()).glob("rapid-*")) == []
        assert [path for path in self.weight_files() if is_orphan(path)] == []

    def wait_for_no_process(self) -> None:
        """Ray's workers end a moment after what started them."""
        deadline = time.monotonic() + 120
        while left := self.processes():
            assert time.monotonic() < deadline, left
            time.sleep(0.1)

    def weight_files(self) -> list[Path]:
        """Its actors' in shared memory; those of a run beside this one are left out."""
        return list(Path("/dev/shm").glob(f"rapid-weights-{re.sub(r'[^A-Za-z0-9]', '_', self.folder.name)}_*"))

    def kill(self) -> None:
        """End everything that is left, whatever happened."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def is_orphan(path: Path) -> bool:
    """Whether no living process has this file locked, as actors lock theirs."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def rapid(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "rapid.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Starts `rapid train` on the tiny recipe, with these --set overrides, options and environment."""
    runs: list[Run] = []

    def begin(name: str, *overrides: str, recipe: str = TINY, options: tuple[str, ...] = (), **environment: str) -> Run:
        mark, log = uuid.uuid4().hex, tmp_path / f"{name}-{len(runs)}.log"
        sets = [part for override in (f"run.directory={tmp_path}", *overrides) for part in ("--set", override)]
        command = [sys.executable, "-m", "rapid.cli", "train", recipe, "--run", name, *sets, *options]
        inherited = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**inherited, **environment, "RAPID_TEST_MARK": mark},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        runs.append(Run(tmp_path / name, mark, log, process))
        return runs[-1]

    yield begin
    for run in runs:
        run.kill()
    # A test that failed half-way may leave some; the next one is not to fail for it.
    for path in Path(tempfile.gettempdir()).glob("rapid-*"):
        shutil.rmtree(path, ignore_errors=True)
