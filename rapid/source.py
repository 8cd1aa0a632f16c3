"""Where `rapid top` gets the moments of a run from: its hub while it goes on, its folder afterwards."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from protocol.blocking import BlockingClient
from protocol.messages import AnyMessage
from rapid.errors import UsageError
from rapid.feed import Feed
from rapid.inspection import ledger_status
from rapid.locate import FoundRun, connect
from telemetry.config import TelemetryConfig
from telemetry.errors import RunDirectoryError
from telemetry.evaluations import read_evaluations
from telemetry.record import elapsed_s
from telemetry.run_dir import RunDirectory
from telemetry.view_state import Happening, RunInfo, ViewState, hub_happenings, starting_phase


class RunSource:
    """A run as it is, and as it becomes: it may start, end, and be resumed while it is watched. Close it.

    Args:
        found: the run; with its folder, the hub's address is read there anew when the run has another one.
    """

    def __init__(self, found: FoundRun) -> None:
        self._found = found
        self._config = _read_config(found.folder) if found.folder is not None else {}
        self._address: str | None = None
        self._client: BlockingClient | None = None
        self._feed: Feed | None = None
        self._pending: Future[AnyMessage] | None = None
        self._happenings: list[Happening] = []

    def ask(self, on_answer: Callable[[], None]) -> bool:
        """Ask the hub; False if there is none, or it owes an answer. `on_answer` is called from another thread."""
        self._follow_hub()
        if self._feed is None or self._pending is not None:
            return False
        self._pending = self._feed.ask()
        self._pending.add_done_callback(lambda _: on_answer())
        return True

    def take(self) -> bool:
        """Take what has become of the question; False if that is open, or none was asked."""
        if self._feed is None or self._pending is None or not self._pending.done():
            return False
        pending, self._pending = self._pending, None
        self._feed.take(pending)
        return True

    def look(self) -> ViewState:
        """Ask, wait for the answer, and return the state. Raises UsageError when a hub gives none."""
        self._follow_hub()
        # A hub may end between the look at its address and the question.
        if self._feed is not None and not self._feed.look() and self._found.current_address() == self._address:
            raise UsageError(
                f"run {self._found.name!r}: its hub at {self._address} does not answer ({self._feed.failure}). Is the "
                "run over, or its machine out of reach?"
            )
        self._follow_hub()
        return self.state()

    def state(self) -> ViewState:
        """The run as far as it is known."""
        if self._feed is not None:
            return self._live_state(self._feed)
        folder = self._found.folder
        assert folder is not None, "without a folder there is a hub"
        if folder.is_in_use():
            return ViewState(
                self._info(None), folder.read_metrics(), phase="the hub does not listen: the run starts, or ends"
            )
        return self._last_state(folder)

    def close(self) -> None:
        """Close the connection to the hub. Idempotent."""
        if self._client is not None:
            self._client.close()
        self._client = self._feed = self._pending = self._address = None

    def _follow_hub(self) -> None:
        """Connect to the hub that the run has now, if it has one."""
        address = self._found.current_address()
        if address == self._address:
            return
        self.close()
        if address is not None:
            self._client = connect(address)
            self._feed, self._address = Feed(self._client, self._found.folder), address

    def _live_state(self, feed: Feed) -> ViewState:
        status: dict[str, Any] = feed.status or {}
        uptime_s = status.get("uptime_s", 0.0)
        since_commit_s = status.get("since_commit_s")
        self._happenings = hub_happenings(feed.status)
        return ViewState(
            info=self._info(status.get("run")),
            records=feed.records(),
            status=feed.status,
            happenings=self._happenings,
            phase=starting_phase(feed.status),
            run_s=uptime_s,
            since_step_s=uptime_s if since_commit_s is None else since_commit_s,
            idle_s=status.get("idle_s", 0.0),
            stall_s=self._config.get("telemetry", {}).get("stall_s", TelemetryConfig().stall_s),
            silent_s=feed.silent_s(),
        )

    def _last_state(self, folder: RunDirectory) -> ViewState:
        records, status = folder.read_metrics(), ledger_status(folder)
        if status is not None:
            # The last comes when there is no record any more to tell it.
            status["evaluations"] = read_evaluations(folder.path)
        return ViewState(
            info=self._info(None),
            records=records,
            status=status,
            happenings=self._happenings,
            phase="no optimizer step was done; logs/ says why",
            run_s=elapsed_s(records)[-1] if records else 0.0,
            is_over=True,
        )

    def _info(self, facts: dict[str, Any] | None) -> RunInfo:
        if facts is not None:
            return RunInfo(
                facts["name"] or self._found.name,
                facts["mode"],
                facts["model"],
                facts["total_steps"],
                facts["max_staleness"],
            )
        schedule, model = self._config.get("schedule", {}), self._config.get("model", {})
        return RunInfo(
            self._found.name,
            schedule.get("mode", "?"),
            Path(model.get("path", "?")).name,
            schedule.get("steps", 0),
            schedule.get("max_staleness", 0),
        )


def _read_config(folder: RunDirectory) -> dict[str, Any]:
    try:
        return folder.read_config()
    except RunDirectoryError as error:
        raise UsageError(str(error)) from None
