"""`rapid report` and `rapid ledger`: what a run's folder says, whether the run is over or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rapid.errors import UsageError
from telemetry.errors import RunDirectoryError
from telemetry.run_dir import RunDirectory


def open_run(run: str, runs: Path) -> RunDirectory:
    """The folder of a run, given by name or path. Raises UsageError naming the runs there are."""
    path = Path(run) if Path(run).is_dir() else runs / run
    if not path.is_dir():
        known = (
            sorted(one.name for one in runs.iterdir() if one.is_dir() and one.name[0] != ".") if runs.is_dir() else []
        )
        raise UsageError(f"run {run!r}: no such folder {path}; runs in {runs}: {', '.join(known) or 'none'}")
    try:
        return RunDirectory.open(path)
    except RunDirectoryError as error:
        raise UsageError(str(error)) from None


def read_ledger(run: RunDirectory) -> dict[str, Any] | None:
    """The ledger's state as the hub last wrote it; None before it did. Raises UsageError when it is damaged."""
    from buffer.errors import LedgerError
    from buffer.summary import STATE_PATH, read_state

    if not (run.path / STATE_PATH).exists():
        return None
    try:
        return read_state(run.path)
    except LedgerError as error:
        raise UsageError(str(error)) from None


def write_report(run: str, runs: Path) -> str:
    """Write the report and the plots; returns what to tell the user."""
    from telemetry.report import write_report as write

    folder = open_run(run, runs)
    if not folder.read_metrics():
        raise UsageError(f"run {folder.name!r} has no optimizer step yet: {folder.metrics_path} is empty or missing")
    return f"wrote {write(folder, ledger_status(folder))} and {folder.plots}"


def ledger_status(folder: RunDirectory) -> dict[str, Any] | None:
    """The parts of a Status that the ledger's state on disk holds."""
    from buffer.summary import summarise

    state = read_ledger(folder)
    if state is None:
        return None
    summary = summarise(state)
    counts = {state.value: count for state, count in summary.counts.items()}
    return {"ledger": counts, "opened": summary.opened, "events": summary.events}


def print_ledger(run: str, runs: Path) -> None:
    """Print where every prompt is."""
    from buffer.summary import ledger_table

    folder = open_run(run, runs)
    state = read_ledger(folder)
    if state is None:
        raise UsageError(f"run {folder.name!r} has no ledger yet; the hub writes it a few seconds after its start")
    print(ledger_table(state))
