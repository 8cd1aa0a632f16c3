"""`rapid train`: from a plan to a finished run, with what the user sees on the way."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from actors.snapshots import remove_orphans
from protocol.blocking import BlockingClient
from protocol.errors import ProtocolError
from protocol.messages import FleetStatus, Supervise
from rapid.cluster import connect_ray
from rapid.errors import RunFailedError
from rapid.inspection import ledger_status
from rapid.launcher_gauges import LauncherGauges
from rapid.pilot import Pilot
from rapid.preflight import Plan
from rapid.supervisor import Supervisor
from telemetry.logs import setup_logging
from telemetry.plots import write_plots
from telemetry.run_dir import RunDirectory, locked
from telemetry.summary import end_summary
from telemetry.targets import Targets
from telemetry.view import LiveView

log = logging.getLogger(__name__)

_POLL_S = 0.5
_STATUS_TIMEOUT_S = 5.0


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
            _run(plan, run)
        finally:
            # Of actors that were killed, and had no successor to do it.
            remove_orphans()
    records = run.read_metrics()
    if records:
        write_plots(run, max_staleness=config.schedule.max_staleness)
    summary = end_summary(
        run,
        records,
        max_staleness=config.schedule.max_staleness,
        status=ledger_status(run),
        recipe=str(recipe),
        total_steps=config.schedule.steps,
    )
    print(summary)


def _run(plan: Plan, run: RunDirectory) -> None:
    config = plan.config
    run.write_config(config.model_dump(mode="json"))
    setup_logging("launcher", run.path, config.telemetry.log_level)
    with contextlib.closing(Targets(run.path)) as targets, _view(plan, run) as view:
        view.set_phase("starting Ray")
        # Ray takes the signals for itself when it starts; they are taken back afterwards.
        with connect_ray() as on_cluster, _interrupts() as interrupts:
            supervisor = Supervisor(plan, on_cluster, tell=partial(_tell, view))
            try:
                view.set_phase("starting hub, learner and actors")
                supervisor.start()
                with run.hub_announced(supervisor.hub_address):
                    _watch(supervisor, run, view, interrupts, targets)
                view.set_phase("ending: actors hand back their leases")
            except RunFailedError:
                supervisor.keep_progress()
                raise
            finally:
                supervisor.end()


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


def _tell(view: LiveView, event: str) -> None:
    log.warning(event)
    view.note(event)


def _watch(
    supervisor: Supervisor, run: RunDirectory, view: LiveView, interrupts: _Interrupts, targets: Targets
) -> None:
    """Show the run, and have as many actors as are wanted, until the learner is done."""
    tell = partial(_tell, view)
    client = BlockingClient(supervisor.hub_address)
    exporter = LauncherGauges(supervisor.plan.config.telemetry.facing(supervisor.hub_address), run)
    pilot, losses, status = Pilot(supervisor, tell), _Losses(tell), None
    is_stopping = False
    try:
        while not supervisor.poll(_POLL_S):
            if interrupts.count and not is_stopping:
                is_stopping = True
                supervisor.stop()
                tell("stopping after this step, with a checkpoint; interrupt again to stop at once")
            fleet = pilot.account(run.read_metrics(), status)
            status = _supervise(client, fleet) or status
            exporter.update(fleet, supervisor.fleet.restarted)
            if not is_stopping:
                pilot.steer(status)
            losses.look(status)
            targets.look(status)
            view.set_phase(_phase(status))
            view.update(run.read_metrics(), status)
        status = _supervise(client, pilot.account(run.read_metrics(), status)) or status
        view.update(run.read_metrics(), status)
    finally:
        client.close()
        exporter.close()


class _Losses:
    """Tells of groups that failed and prompts that were given up: of the first, and then whenever they have doubled."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: dict[str, int] = {}

    def look(self, status: dict[str, Any] | None) -> None:
        """At the hub's newest status."""
        events = status["events"] if status else {}
        self._count("groups_failed", events, "groups failed and are tried again or given up")
        self._count("dead_letters", events, "prompts were given up after too many attempts (dead letters)")

    def _count(self, event: str, events: dict[str, int], what: str) -> None:
        count = events.get(event, 0)
        if count and count >= 2 * self._told.get(event, 0):
            self._told[event] = count
            self._tell(f"{count} {what}; the reasons are in the actors' logs")


def _phase(status: dict[str, Any] | None) -> str:
    """What goes on before the first step."""
    clients = status["clients"] if status else []
    if any(client["role"] == "actor" and client["version"] is not None for client in clients):
        return "generating the first groups"
    return "loading the engines and the learner"


def _supervise(client: BlockingClient, fleet: FleetStatus) -> dict[str, Any] | None:
    """Tell the hub of the actors; its status as plain data, None if it did not answer in time."""
    try:
        return msgspec.to_builtins(client.request(Supervise(fleet=fleet), _STATUS_TIMEOUT_S))
    except ProtocolError as error:
        log.warning("the hub does not answer: %s", error)
        return None
