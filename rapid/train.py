"""`rapid train`: from a plan to a finished run, with what the user sees on the way."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from actors.snapshots import remove_orphans
from rapid.cluster import connect_ray
from rapid.environment import write_environment
from rapid.inspection import ledger_status
from rapid.preflight import Plan
from rapid.supervisor import Supervisor
from rapid.watch import Teller, Watch
from telemetry.logs import setup_logging
from telemetry.plots import write_plots
from telemetry.record import Record
from telemetry.run_dir import RunDirectory, locked
from telemetry.summary import end_summary
from telemetry.targets import Targets
from telemetry.trackers import Trackers
from telemetry.view import LiveView


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
    # What is there already is a run to resume, or one that ended before its first step.
    run = RunDirectory.open(plan.run_dir) if plan.run_dir.exists() else RunDirectory.create(plan.run_dir)
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
    values = config.model_dump(mode="json")
    run.write_config(values)
    setup_logging("launcher", run.path, config.telemetry.log_level, config.telemetry.log_format)
    with _view(plan, run) as view, contextlib.closing(Targets(run.path)) as targets:
        tell = Teller(view)
        view.set_phase("starting Ray")
        # Ray takes the signals for itself when it starts; they are taken back afterwards.
        with (
            Trackers(run, values, config.telemetry, tell) as trackers,
            connect_ray() as on_cluster,
            _interrupts() as interrupts,
        ):
            write_environment(run, config, on_cluster=on_cluster)
            supervisor = Supervisor(plan, on_cluster, tell, lambda: interrupts.count > 0)
            try:
                view.set_phase("starting hub, learner and actors")
                supervisor.start()
                with Watch(supervisor, run, view, trackers, targets, tell) as watch:
                    watch.until_done(lambda: interrupts.count > 0)
                    seen = watch.records
                view.set_phase("ending: actors hand back their leases")
            except Exception:  # Whatever ends the run, what was learned is kept.
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
