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
from protocol.messages import Inspect
from rapid.cluster import connect_ray
from rapid.environment import write_environment
from rapid.errors import RunFailedError
from rapid.inspection import ledger_status
from rapid.preflight import Plan
from rapid.supervisor import Supervisor
from telemetry.logs import setup_logging
from telemetry.plots import write_plots
from telemetry.run_dir import RunDirectory, locked
from telemetry.summary import end_summary
from telemetry.trackers import Trackers
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
    values = config.model_dump(mode="json")
    run.write_config(values)
    setup_logging("launcher", run.path, config.telemetry.log_level, config.telemetry.log_format)
    with _view(plan, run) as view, Trackers(run, values, config.telemetry, partial(_tell, view)) as trackers:
        view.set_phase("starting Ray")
        num_parts = 1 + config.learner.ranks + config.actors.count
        # Ray takes the signals for itself when it starts; they are taken back afterwards.
        with connect_ray(num_parts) as on_cluster, _interrupts() as interrupts:
            write_environment(run, config, on_cluster=on_cluster)
            supervisor = Supervisor(plan, on_cluster, tell=partial(_tell, view))
            try:
                view.set_phase("starting hub, learner and actors")
                supervisor.start()
                _watch(supervisor, run, view, trackers, interrupts)
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
    supervisor: Supervisor, run: RunDirectory, view: LiveView, trackers: Trackers, interrupts: _Interrupts
) -> None:
    """Show the run, and hand its records to the trackers, until the learner is done."""
    client = BlockingClient(supervisor.hub_address)
    is_stopping, status, losses = False, None, _Losses(partial(_tell, view))
    try:
        while not supervisor.poll(_POLL_S):
            if interrupts.count and not is_stopping:
                is_stopping = True
                supervisor.stop()
                _tell(view, "stopping after this step, with a checkpoint; interrupt again to stop at once")
            status = _inspect(client) or status
            losses.look(status)
            view.set_phase(_phase(status))
            _show(run, view, trackers, status)
        status = _inspect(client) or status
        _show(run, view, trackers, status)
    finally:
        client.close()


def _show(run: RunDirectory, view: LiveView, trackers: Trackers, status: dict[str, Any] | None) -> None:
    records = run.read_metrics()
    view.update(records, status)
    trackers.offer(records)


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


def _inspect(client: BlockingClient) -> dict[str, Any] | None:
    """The hub's status as plain data; None if it did not answer in time."""
    try:
        return msgspec.to_builtins(client.request(Inspect(), _STATUS_TIMEOUT_S))
    except ProtocolError as error:
        log.warning("the hub does not answer: %s", error)
        return None
