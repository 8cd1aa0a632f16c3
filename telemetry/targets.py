"""Where a run's processes serve their metrics, in files that Prometheus' file_sd watches.

    runs/NAME/exporters/PROCESS.json   one process: written by itself on its own disk, and removed when it ends
    runs/.targets/NAME.json            all of a run, for one `runs/.targets/*.json` in Prometheus' configuration, whose
                                       patterns may have a star in their last part only

The launcher keeps both true to what the hub knows: a process on another machine has written its file there, and one
that was killed has removed nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from telemetry.metric import PARTS
from telemetry.run_dir import write_atomically

log = logging.getLogger(__name__)

_GRACE_S = 30.0
"""A process tells the hub of itself some time after it has written its file."""


def split_process(process: str) -> tuple[str, int]:
    """ "actor-3" as ("actor", 3), "hub" as ("hub", 0). Raises ValueError for what is no part of Rapid."""
    part, _, index = process.partition("-")
    if part not in PARTS or (index and not index.isdigit()):
        raise ValueError(f'process {process!r}: expected one of {list(PARTS)}, with a number as "actor-0"')
    return part, int(index or 0)


def announce(run_dir: Path, process: str, address: str) -> Path:
    """Write a process's file; returns its path. Raises ValueError for what is no part of Rapid."""
    labels = {"run": run_dir.name, "part": split_process(process)[0], "process": process}
    path = run_dir / "exporters" / f"{process}.json"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps([{"targets": [address], "labels": labels}]) + "\n")
    return path


class Targets:
    """The launcher's view of these files. Made before the parts start: it removes what an earlier life left behind."""

    def __init__(self, run_dir: Path, now: Callable[[], float] = time.monotonic) -> None:
        self._run_dir, self._folder, self._now = run_dir, run_dir / "exporters", now
        self._unknown_since: dict[str, float] = {}
        self._written: set[str] = set()
        self._all = run_dir.parent / ".targets" / f"{run_dir.name}.json"
        self._all_text = ""
        self._has_failed = False
        for path in self._folder.glob("*.json"):
            path.unlink(missing_ok=True)

    def look(self, status: Mapping[str, Any] | None) -> None:
        """Follow the hub's newest Status, as plain data; None (it did not answer) changes nothing."""
        if status is None:
            return
        try:
            self._follow(status)
        except OSError as error:
            # A disk that is full costs Prometheus its way to the run, never the run.
            if not self._has_failed:
                log.warning("Prometheus is not told where this run's processes are: %s", error)
            self._has_failed = True

    def _follow(self, status: Mapping[str, Any]) -> None:
        known = {"hub": status["metrics_address"]}
        known |= {_process(client): client["metrics_address"] for client in status["clients"]}
        for process, address in known.items():
            if address and self._told(process) != address:
                # Names come over the network; one that is no process of ours is no file's name either.
                with contextlib.suppress(ValueError):
                    announce(self._run_dir, process, address)
                    self._written.add(process)
        for path in self._folder.glob("*.json"):
            if path.stem not in known and path.stem != "launcher":
                self._remove_in_time(path)
        self._unknown_since = {name: since for name, since in self._unknown_since.items() if name not in known}
        self._write_all()

    def _write_all(self) -> None:
        groups: list[Any] = []
        for path in sorted(self._folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError):
                groups += json.loads(path.read_text(encoding="utf-8"))
        text = json.dumps(groups, indent=1) + "\n"
        if text != self._all_text:
            self._all.parent.mkdir(exist_ok=True)
            write_atomically(self._all, text)
            self._all_text = text

    def _told(self, process: str) -> str | None:
        with contextlib.suppress(OSError, ValueError, LookupError):
            return str(json.loads((self._folder / f"{process}.json").read_text(encoding="utf-8"))[0]["targets"][0])
        return None

    def _remove_in_time(self, path: Path) -> None:
        if self._now() - self._unknown_since.setdefault(path.stem, self._now()) >= _GRACE_S:
            path.unlink(missing_ok=True)
            del self._unknown_since[path.stem]

    def close(self) -> None:
        """The run is over: nothing that was written here is served any more."""
        with contextlib.suppress(OSError):
            for process in self._written:
                (self._folder / f"{process}.json").unlink(missing_ok=True)
            self._all.unlink(missing_ok=True)


def _process(client: Mapping[str, Any]) -> str:
    # The learner's first rank serves metrics, and speaks for all its ranks.
    return "learner-0" if client["role"] == "learner" else str(client["name"])
