"""`rapid train`: from a plan to a finished run, with what the user sees on the way."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actors.snapshots import remove_orphans
from protocol.blocking import BlockingClient
from protocol.messages import MAX_NOTE, Note
from rapid.cluster import connect_ray
from rapid.errors import RunFailedError
from rapid.feed import Feed
from rapid.inspection import ledger_status
from rapid.launcher_gauges import LauncherGauges
from rapid.pilot import Pilot
from rapid.preflight import Plan
from rapid.supervisor import Supervisor
from telemetry.logs import setup_logging
from telemetry.plots import write_plots
from telemetry.record import Record
from telemetry.run_dir import RunDirectory, locked
from telemetry.summary import end_summary
from telemetry.targets import Targets
from telemetry.view import LiveView
from telemetry.view_state import starting_phase

log = logging.getLogger(__name__)

_POLL_S = 0.5


class _Interrupts:
    """Counts Ctrl-C and SIGTERM: the first asks for a clean end, the second ends at once."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, signum: int, frame: Any) -> None:
        self.count += 1
        if self.count > 1:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _interrupts() -> Iterator[_Interrupts]:
    counter = _Interrupts()
    before = {number: signal.signal(number, counter) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield counter
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(plan: Plan, recipe: Path) -> None:
    """Run until the learner's last step, or until interrupted; then checkpoint, drain, plots and summary.

    Raises:
        RunFailedError: a part that must live died. What was done until then is in the run's folder.
    """
    config = plan.config
    run = RunDirectory.open(plan.run_dir) if plan.resume else RunDirectory.create(plan.run_dir)
    with locked(run.path):
        try:
            seen = _run(plan, run)
        finally:
            # Of actors that were killed, and had no successor to do it.
            remove_orphans()
    records = run.read_metrics()
    if records:
        write_plots(run, max_staleness=config.schedule.max_staleness)
    summary = end_summary(
        run,
        records or seen,
        max_staleness=config.schedule.max_staleness,
        status=ledger_status(run),
        recipe=str(recipe),
        total_steps=config.schedule.steps,
    )
    print(summary)


def _run(plan: Plan, run: RunDirectory) -> list[Record]:
    """Returns the step records that were seen, for where metrics.jsonl lies on another machine."""
    config = plan.config
    run.write_config(config.model_dump(mode="json"))
    setup_logging("launcher", run.path, config.telemetry.log_level)
    with contextlib.closing(Targets(run.path)) as targets, _view(plan, run) as view:
        view.set_phase("starting Ray")
        # Ray takes the signals for itself when it starts; they are taken back afterwards.
        with connect_ray() as on_cluster, _interrupts() as interrupts:
            tell = _Teller(view)
            supervisor = Supervisor(plan, on_cluster, tell)
            try:
                view.set_phase("starting hub, learner and actors")
                supervisor.start()
                with run.hub_announced(supervisor.hub_address):
                    seen = _watch(supervisor, run, view, interrupts, targets, tell)
                view.set_phase("ending: actors hand back their leases")
            except RunFailedError:
                supervisor.keep_progress()
                raise
            finally:
                supervisor.end()
    return seen


def _view(plan: Plan, run: RunDirectory) -> LiveView:
    config = plan.config
    return LiveView(
        run,
        config.schedule.steps,
        mode=config.schedule.mode.value,
        model=Path(config.model.path).name,
        max_staleness=config.schedule.max_staleness,
        config=config.telemetry,
    )


class _Teller:
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


def _watch(
    supervisor: Supervisor,
    run: RunDirectory,
    view: LiveView,
    interrupts: _Interrupts,
    targets: Targets,
    tell: _Teller,
) -> list[Record]:
    """Show the run, and have as many actors as are wanted, until the learner is done. Returns the records seen."""
    client = tell.client = BlockingClient(supervisor.hub_address)
    exporter = LauncherGauges(supervisor.plan.config.telemetry.facing(supervisor.hub_address), run)
    feed, pilot = Feed(client, run), Pilot(supervisor, tell)
    is_stopping = False
    try:
        while not supervisor.poll(_POLL_S):
            if interrupts.count and not is_stopping:
                is_stopping = True
                supervisor.stop()
                tell("stopping after this step, with a checkpoint; interrupt again to stop at once")
            fleet = pilot.account(feed.records(), feed.status)
            feed.look(fleet)
            exporter.update(fleet, supervisor.fleet.restarted)
            if not is_stopping:
                pilot.steer(feed.status)
            targets.look(feed.status)
            view.set_phase(starting_phase(feed.status))
            view.update(feed.records(), feed.status)
        feed.look(pilot.account(feed.records(), feed.status))
        view.update(feed.records(), feed.status)
    finally:
        tell.client = None
        client.close()
        exporter.close()
    return feed.records()
