"""`rapid report` and `rapid ledger`: what a run's folder says, whether the run is over or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rapid.errors import UsageError, is_disk_full
from telemetry.errors import RunDirectoryError
from telemetry.run_dir import RunDirectory


def open_run(run: str, runs: Path) -> RunDirectory:
    """The folder of a run, given by name or path. Raises UsageError naming the runs there are.

    A run may be called as some other folder is, such as one of the repository where the command is given.
    """
    path = Path(run)
    if not path.is_dir() or (not RunDirectory.is_one(path) and (runs / run).is_dir()):
        path = runs / run
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


def write_report(names: list[str], runs: Path, out: Path | None = None) -> str:
    """Write the report of one run and its plots, or of several beside each other; returns what to tell the user.

    Args:
        names: of the runs, or their folders.
        runs: folder that holds the runs.
        out: where the page goes. None takes report.html in the run's folder, of several compare.html in the first's.
    """
    from telemetry.plots import write_plots
    from telemetry.report import load_run
    from telemetry.report import write_report as write

    folders = [open_run(name, runs) for name in names]
    for folder in folders:
        if not folder.read_metrics():
            raise UsageError(
                f"run {folder.name!r} has no optimizer step yet: {folder.metrics_path} is empty or missing"
            )
    data = [load_run(folder, ledger_status(folder)) for folder in folders]
    first = folders[0]
    path = out or (first.report_path if len(folders) == 1 else first.path / "compare.html")
    try:
        write(data, path)
    except OSError as error:
        if is_disk_full(error):
            error.filename = str(path)
            raise
        raise UsageError(f"--out {path}: {error.strerror}; name a file in a folder that exists") from None
    if len(folders) > 1:
        return f"wrote {path}"
    write_plots(first, max_staleness=data[0].bound)
    return f"wrote {path} and {first.plots}"


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
