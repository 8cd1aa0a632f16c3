"""A run's folder: where everything lies that a run leaves behind.

runs/NAME/  config.json        the resolved configuration
            environment.json   versions, machine and parts of the newest start (rapid.environment)
            metrics.jsonl      one record an optimizer step, appended by the learner alone
            eval.jsonl         what the held-out prompts came to, by version (telemetry.evaluations)
            samples.jsonl      groups of every n-th step with their tokens, by the learner (telemetry.samples)
            timeline/PART.jsonl   what each process did when (telemetry.timeline)
            ledger/            the buffer's durable store
            checkpoints/step-000040/
            snapshots/step-000040/   weights alone, to be evaluated (learner.snapshots)
            logs/PART.log      one file a process
            hub.json           where the hub listens, while the run goes on
            exporters/PROCESS.json   where each process serves its metrics, see telemetry.targets
            tensorboard/, wandb/  what trackers keep, where they are switched on (telemetry.trackers)
            plots/*.png, report.html
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from telemetry.errors import RecordError, RunDirectoryError
from telemetry.lines import cut_torn_line
from telemetry.record import Record, check_record, current_line, encode_record

log = logging.getLogger(__name__)

_HUB = "hub.json"
_LOCK = ".lock"
_FOLDERS = ("checkpoints", "logs", "exporters", "plots", "ledger", "timeline")


class RunDirectory:
    """Paths, configuration and metrics of one run. Any number of processes may read, one may append.

    Build it with `create` or `open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._history: list[Record] = []
        self._read_bytes = 0
        self._is_mended = False

    @classmethod
    def create(cls, path: Path | str) -> RunDirectory:
        """Make a new run's folder. Raises RunDirectoryError if something is there already."""
        path = Path(path).resolve()
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            raise RunDirectoryError(
                f"{path} exists already: choose another --run name, or go on with that run with --resume"
            ) from None
        except OSError as error:
            raise RunDirectoryError(f"cannot make the run's folder {path}: {error.strerror}") from error
        for name in _FOLDERS:
            (path / name).mkdir()
        return cls(path)

    @classmethod
    def open(cls, path: Path | str) -> RunDirectory:
        """Open an existing run's folder. Raises RunDirectoryError if it is none."""
        path = Path(path).resolve()
        if not path.is_dir():
            raise RunDirectoryError(f"{path} does not exist: expected a run's folder; is the run's name right?")
        if not cls.is_one(path):
            raise RunDirectoryError(f"{path} is not a run's folder: it has neither config.json, logs nor metrics.jsonl")
        with contextlib.suppress(OSError):  # whoever only reads may not write
            for name in _FOLDERS:
                (path / name).mkdir(exist_ok=True)
        return cls(path)

    @staticmethod
    def is_one(path: Path) -> bool:
        """Whether a run has left anything in this folder."""
        return any((path / name).exists() for name in ("config.json", "logs", "metrics.jsonl"))

    def never_began(self) -> bool:
        """Whether a launcher made this folder and ended before the first step, so that it may begin anew."""
        has_config = (self.path / "config.json").is_file()
        has_steps = self.metrics_path.exists() and self.metrics_path.stat().st_size > 0
        return has_config and not has_steps and not any(self.checkpoints.glob("step-*")) and not self.is_in_use()

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def metrics_path(self) -> Path:
        """metrics.jsonl; missing before the first step."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def logs(self) -> Path:
        """Folder of the log files."""
        return self.path / "logs"

    @property
    def plots(self) -> Path:
        """Folder of the pictures."""
        return self.path / "plots"

    @property
    def report_path(self) -> Path:
        """report.html."""
        return self.path / "report.html"

    @property
    def timeline(self) -> Path:
        """Folder of the processes' timelines."""
        return self.path / "timeline"

    @property
    def samples_path(self) -> Path:
        """samples.jsonl; missing before the first sample."""
        return self.path / "samples.jsonl"

    @property
    def environment_path(self) -> Path:
        """environment.json."""
        return self.path / "environment.json"

    def checkpoint_path(self, step: int) -> Path:
        """Where the checkpoint of an optimizer step lies."""
        return self.checkpoints / f"step-{step:06d}"

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Keep the resolved configuration, as JSON."""
        write_atomically(self.path / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")

    def read_config(self) -> dict[str, Any]:
        """The resolved configuration. Raises RunDirectoryError if it is missing or damaged."""
        path = self.path / "config.json"
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunDirectoryError(f"{path} is missing: expected the run's resolved configuration") from None
        except ValueError as error:
            raise RunDirectoryError(f"{path} is damaged: {error}") from error
        if not isinstance(config, dict):
            raise RunDirectoryError(f"{path} holds a {type(config).__name__}, expected a map of sections")
        return config

    @contextlib.contextmanager
    def hub_announced(self, address: str) -> Iterator[None]:
        """Tell others on this file system where the run's hub listens, for as long as it does."""
        path = self.path / _HUB
        write_atomically(path, json.dumps({"address": address}) + "\n")
        try:
            yield
        finally:
            path.unlink(missing_ok=True)

    def hub_address(self) -> str | None:
        """Where the hub of a run that goes on listens; None when the run is over. A killed run leaves it behind."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            return str(json.loads((self.path / _HUB).read_text(encoding="utf-8"))["address"])
        return None

    def is_in_use(self) -> bool:
        """Whether a launcher works in this folder. On a file system without locks it counts as so."""
        try:
            with (self.path / _LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def append_metrics(self, record: Mapping[str, Any]) -> Record:
        """Append the record of one optimizer step as one whole line, and return it as it was written.

        A line that a crash left torn is cut off first.

        Raises:
            RecordError: the record breaks the contract, or does not follow the one before it.
        """
        checked = check_record(record)
        if not self._is_mended:
            cut_torn_line(self.metrics_path)
            self._is_mended = True
        _check_follows(self.read_history(), checked)
        with self.metrics_path.open("ab", buffering=0) as file:
            file.write(encode_record(checked))
        return checked

    def read_metrics(self) -> list[Record]:
        """The records that the present weights descend from, one a step (see `telemetry.record.current_line`)."""
        return current_line(self.read_history())

    def read_history(self) -> list[Record]:
        """All records as they were appended, superseded ones included.

        A torn last line is left out. Only what is new since the last call is read from the disk.

        Raises:
            RecordError: a whole line is not JSON.
        """
        try:
            with self.metrics_path.open("rb") as file:
                file.seek(self._read_bytes)
                new = file.read()
        except FileNotFoundError:
            return []
        whole = new[: new.rfind(b"\n") + 1]
        for line in whole.splitlines():
            self._history.append(self._parse(line))
        self._read_bytes += len(whole)
        return list(self._history)

    def _parse(self, line: bytes) -> Record:
        try:
            record = json.loads(line)
            if isinstance(record, dict) and {"step", "incarnation"} <= set(record):
                return record
        except ValueError:
            pass
        raise RecordError(
            f"{self.metrics_path}, line {len(self._history) + 1}: {line[:60]!r}, expected a record as JSON; "
            "the file was changed by hand or the disk is damaged"
        )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep every other launcher out of a run's folder; the lock goes when its process ends, however it ends.

    Raises RunDirectoryError if another process has it.
    """
    with (path / _LOCK).open("a") as file:
        try:
            _lock(file.fileno())
        except BlockingIOError:
            raise RunDirectoryError(
                f"{path} is in use: expected no other `rapid train` on this run; wait for it to end, stop it, or "
                "choose another --run name"
            ) from None
        except OSError as error:  # A file system without locks is no reason not to train.
            log.warning("%s cannot be locked against a second launcher: %s", path, error)
        yield


def _lock(descriptor: int) -> None:
    """Take the lock. Raises BlockingIOError if somebody keeps it: `is_in_use` has it for a moment only."""
    for pause_s in (0.05, 0.2, 0.5):
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause_s)
    return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _check_follows(history: list[Record], record: Record) -> None:
    if not history:
        return
    last, new = ((r["incarnation"], r["step"]) for r in (history[-1], record))
    if new <= last:
        raise RecordError(
            f"metrics record of incarnation {new[0]}, step {new[1]} after incarnation {last[0]}, step {last[1]}: "
            "expected a later step, or a higher incarnation"
        )


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, never a part."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
