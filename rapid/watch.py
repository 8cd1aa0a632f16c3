"""What the launcher does while a run goes on: looks at it twice a second, and hands on what it sees.

hub ──status, records──► Feed ──► view, trackers, target files of Prometheus, own metrics
                          └────► Pilot: more or fewer actors ──► Fleet
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from protocol.blocking import BlockingClient
from protocol.status import MAX_NOTE, Note
from rapid.feed import Feed
from rapid.launcher_gauges import LauncherGauges
from rapid.pilot import Pilot
from rapid.supervisor import Supervisor
from telemetry.record import Record
from telemetry.run_dir import RunDirectory
from telemetry.targets import Targets
from telemetry.trackers import Trackers
from telemetry.view import LiveView
from telemetry.view_state import starting_phase

log = logging.getLogger(__name__)

_POLL_S = 0.5


class Teller:
    """Tells of what happened: in the log, in the view, and through the hub to whoever else watches."""

    def __init__(self, view: LiveView) -> None:
        self._view = view
        self.client: BlockingClient | None = None
        """Connected to the hub, while there is one."""

    def __call__(self, event: str) -> None:
        log.warning(event)
        # Cut here, so that the hub and the view hold the same text and show it once.
        text = event[:MAX_NOTE]
        self._view.note(text)
        if self.client is not None:
            self.client.submit(Note(text=text))


class Watch:
    """Use it as a context, once the supervisor has started the run."""

    def __init__(
        self,
        supervisor: Supervisor,
        run: RunDirectory,
        view: LiveView,
        trackers: Trackers,
        targets: Targets,
        tell: Teller,
    ) -> None:
        self._supervisor, self._view, self._trackers, self._targets = supervisor, view, trackers, targets
        self._tell = tell
        telemetry = supervisor.plan.config.telemetry.facing(supervisor.hub_address)
        with ExitStack() as stack:
            stack.enter_context(run.hub_announced(supervisor.hub_address))
            client = tell.client = BlockingClient(supervisor.hub_address)
            stack.callback(self._hang_up, client)
            self._gauges = LauncherGauges(telemetry, run)
            stack.callback(self._gauges.close)
            self._feed, self._pilot = Feed(client, run), Pilot(supervisor, tell)
            self.records: list[Record] = []
            """The step records seen so far, also those of a metrics.jsonl on another machine."""
            self._stack = stack.pop_all()

    def _hang_up(self, client: BlockingClient) -> None:
        self._tell.client = None
        client.close()

    def until_done(self, is_interrupted: Callable[[], bool]) -> None:
        """Go on until the learner has done its last step, or the one under way when `is_interrupted` says so."""
        is_stopping = False
        while not self._supervisor.poll(_POLL_S):
            if is_interrupted() and not is_stopping:
                is_stopping = True
                self._supervisor.stop()
                self._tell("stopping after this step, with a checkpoint; interrupt again to stop at once")
            self._look(is_ending=is_stopping)
            if not is_stopping:
                self._pilot.steer(self._feed.status)
        self._look(is_ending=True)
        self._trackers.offer_last((self._feed.status or {}).get("evaluations", []), self.records)

    def _look(self, *, is_ending: bool) -> None:
        fleet = self._pilot.account(self.records, self._feed.status, is_ending=is_ending)
        self._gauges.update(fleet, self._supervisor.fleet.restarted)
        self._feed.look(fleet)
        status, self.records = self._feed.status, self._feed.records()
        self._targets.look(status)
        self._view.set_phase(starting_phase(status))
        self._view.update(self.records, status)
        self._trackers.offer(self.records)

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
