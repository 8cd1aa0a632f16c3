"""Goes through the runs of a plan: which are left, which fit the time, and what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from bench.table.cell import Cell
from bench.table.execute import MAX_FAILURES, Executor, Interrupted, RunFailure, clean_up, tail
from bench.table.state import read_state


@dataclass
class Outcome:
    """What a session did."""

    ended: list[str] = field(default_factory=list)
    """Names of runs that came to their result."""
    failed: dict[str, str] = field(default_factory=dict)
    """Names of runs that failed, with the reason."""
    left: list[str] = field(default_factory=list)
    """Names of runs that have still to be done."""
    elsewhere: list[str] = field(default_factory=list)
    """Names of runs that another session is at."""
    reason: str = ""
    """Why some are left; empty if none is."""


def order_cells(cells: Sequence[Cell]) -> list[Cell]:
    """Seed by seed, so that a session that ends early leaves whole tables, and a machine that changes its speed in the
    course of a day favours no arm. What was begun and cut off comes first."""
    seeds = {cell.seed: position for position, cell in reversed(list(enumerate(cells)))}
    return sorted(cells, key=lambda cell: (not cell.state_path.exists(), seeds[cell.seed]))


def run_session(
    cells: Sequence[Cell],
    executor: Executor,
    *,
    max_minutes: float | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Run what has no result yet. Several sessions may go through one plan: each run is done by one of them.

    Args:
        max_minutes: no run is begun that would not end within them, as far as the runs before tell.
        now: seconds of a clock.
    """
    outcome, start = Outcome(), now()
    todo = [cell for cell in order_cells(cells) if not cell.result_path.exists()]
    for cell in cells:
        if cell.result_path.exists():
            # An interruption may have come between the result and the cleaning up.
            with held(cell) as is_ours:
                if is_ours:
                    clean_up(cell)

    def does_not_fit(cell: Cell) -> bool:
        expected_s = expected_duration(cell, cells) or 0.0
        return max_minutes is not None and now() - start + expected_s > 60 * max_minutes

    for position, cell in enumerate(todo):
        with held(cell) as is_ours:
            if not is_ours:
                outcome.elsewhere.append(cell.name)
            elif cell.result_path.exists():
                continue  # another session brought it to its end meanwhile
            elif read_state(cell.state_path).failures >= MAX_FAILURES:
                outcome.failed[cell.name] = f"failed {MAX_FAILURES} times before; delete {cell.state_path} to try again"
            elif does_not_fit(cell):
                outcome.reason = f"--max-minutes {max_minutes:g}: the next run would not fit"
            elif not _run(cell, executor, outcome, f"{position + 1} of {len(todo)}"):
                outcome.reason = "interrupted; the same command goes on"
        if outcome.reason:
            outcome.left = [each.name for each in todo[position:]]
            break
    return outcome


@contextmanager
def held(cell: Cell) -> Iterator[bool]:
    """Whether this session has the run for itself, until the end of the block; a killed session lets go of it."""
    from filelock import FileLock, Timeout

    cell.lock_path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(cell.lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _run(cell: Cell, executor: Executor, outcome: Outcome, place: str) -> bool:
    """Run one cell. False if the user asked for the end."""
    executor.tell(f"{place}: {cell.name}")
    try:
        result = executor.run(cell)
    except Interrupted:
        return False
    except RunFailure as error:
        outcome.failed[cell.name] = str(error)
        executor.tell(f"  failed: {error}\n{tail(cell.log_path)}")
    else:
        outcome.ended.append(cell.name)
        executor.tell(f"  {describe(result)}")
    return True


def expected_duration(cell: Cell, cells: Sequence[Cell]) -> float | None:
    """Seconds of the whole run, by those of the same arm and task, else of the same task, else of any; None without."""
    done = [(each, result) for each in cells if (result := each.result()) is not None]
    alike = [pair for pair in done if (pair[0].task, pair[0].arm) == (cell.task, cell.arm)]
    found = alike or [pair for pair in done if pair[0].task == cell.task] or done
    return fmean(result["total_s"] for _, result in found) if found else None


def describe(result: dict[str, Any]) -> str:
    """One line on a run that has ended."""
    last = result["curve"][-1]
    accuracy = ", ".join(f"pass@{k} {value['mean']:.3f}" for k, value in last["pass_at"].items())
    remarks = "".join(f"; {note}" for note in result["notes"])
    return f"{result['steps']} steps in {result['wall_s']:.0f} s, {accuracy}{remarks}"
