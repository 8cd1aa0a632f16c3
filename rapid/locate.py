"""Which run a command means, and its hub: by the run's name, by its folder, or by the hub's address."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from protocol.blocking import BlockingClient
from protocol.errors import AddressError, ProtocolError, RefusedError
from protocol.messages import AnyMessage
from protocol.status import Inspect
from rapid.errors import UsageError
from rapid.inspection import open_run
from telemetry.errors import RunDirectoryError
from telemetry.run_dir import RunDirectory

_ANSWER_S = 5.0


@dataclass(frozen=True)
class FoundRun:
    """A run, whether it goes on or not."""

    name: str
    address: str | None
    """The hub's, where it was given; otherwise the folder tells it."""
    folder: RunDirectory | None
    """None where only the hub's address is known: the run's files may lie on another machine."""

    def current_address(self) -> str | None:
        """Where the hub listens now; None while there is none. A killed launcher leaves an address behind."""
        if self.folder is None:
            return self.address
        return self.folder.hub_address() if self.folder.is_in_use() else None


@dataclass(frozen=True)
class RunningRun:
    """A run that goes on. Close its client."""

    name: str
    client: BlockingClient

    def inspect(self) -> dict[str, Any]:
        """The hub's Status as plain data. Raises UsageError when the hub does not answer."""
        return msgspec.to_builtins(self.request(Inspect()))

    def request(self, message: AnyMessage) -> AnyMessage:
        """The hub's answer. Raises UsageError when there is none, and RefusedError when the hub says no."""
        try:
            return self.client.request(message, _ANSWER_S)
        except RefusedError:
            raise
        except ProtocolError as error:
            raise UsageError(
                f"run {self.name!r}: its hub does not answer ({error}). Is the run over, or its machine out of reach?"
            ) from None


def find(run: str | None, runs: Path) -> FoundRun:
    """The run that a command means, which may be over.

    Args:
        run: a name, a folder or "tcp://HOST:PORT"; None means the one run under `runs` that goes on.
        runs: folder that holds the runs.

    Raises:
        UsageError: there is no such run, or None is ambiguous.
    """
    if run is not None and "://" in run:
        return FoundRun(run, run, None)
    folder = _only_running(runs) if run is None else open_run(run, runs)
    return FoundRun(folder.name, None, folder)


def reach(run: str | None, runs: Path) -> RunningRun:
    """Connect to the hub of a run; arguments as of `find`.

    Raises:
        UsageError: there is no such run, it is over, or None is ambiguous.
    """
    found = find(run, runs)
    address = found.current_address()
    if address is None:
        raise UsageError(
            f"run {found.name!r} does not go on: expected a `rapid train` at work in {runs / found.name}, whose "
            "hub.json says where to reach it; start it anew with --resume, or name another run"
        )
    return RunningRun(found.name, connect(address))


def connect(address: str) -> BlockingClient:
    """A client of the hub at this address, whether it answers or not. Raises UsageError for what is no address."""
    try:
        return BlockingClient(address)
    except AddressError as error:
        raise UsageError(f"{error}, of a run's hub") from None


def _only_running(runs: Path) -> RunDirectory:
    found = []
    for path in sorted(runs.iterdir()) if runs.is_dir() else []:
        try:
            folder = RunDirectory.open(path)
        except RunDirectoryError:
            continue
        if folder.is_in_use():
            found.append(folder)
    if len(found) == 1:
        return found[0]
    names = ", ".join(folder.name for folder in found) or "none"
    raise UsageError(f"which run? Runs that go on in {runs}: {names}; name one, or give its hub as tcp://HOST:PORT")
