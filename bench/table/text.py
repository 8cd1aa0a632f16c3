"""The tables as Markdown, aligned so that they read in a terminal too."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.table.arms import LAGS, STALE_LOSSES, stale_name
from bench.table.curves import Interval, Mean
from bench.table.summary import Row, Table
from bench.table.timing import KINDS

HEAD = (
    "arm",
    "seeds",
    "trained",
    "time to A*",
    "saved at A*",
    "time at N",
    "saved at N",
    "peak GiB",
    *KINDS,
    "lag",
    "drawn/trained",
)


def render(tables: Sequence[Table], legend: dict[str, str]) -> str:
    """All tables of a plan, one text."""
    parts = [render_table(table) for table in tables]
    rows = [row for table in tables for row in table.rows if not row.arm.startswith("stale-")]
    arms = list(dict.fromkeys(row.arm for row in rows))
    if arms:
        parts.append("\n".join(f"- `{arm}`: {legend[arm]}" for arm in arms))
    parts.append(
        "A*: where the smoothed curve of the baseline ends. N: completions that every run has trained on. Time is "
        "that of training, without start and evaluation. Mean ± standard error over seeds; in brackets 95 % of the "
        "bootstrap over seeds. Definitions: docs/experiments.md."
    )
    return "\n\n".join(parts) + "\n"


def render_table(table: Table) -> str:
    """One task: the main table, the staleness series if there is one, and notes on single runs."""
    level = "not known yet" if table.equal_accuracy is None else f"{table.equal_accuracy:.3f}"
    head = f"## {table.task}\n\nA* = {level} (pass@1 of `{table.baseline}`), N = {table.equal_samples:.0f}"
    ks = list(table.rows[0].accuracy)
    columns = [HEAD[0], HEAD[1], *(f"pass@{k}" for k in ks), *HEAD[2:]]
    main = [row for row in table.rows if not row.arm.startswith("stale-")]
    parts = [head]
    if main:
        parts.append(align([columns, *(_cells(row, ks) for row in main)]))
    if series := staleness_cells(table):
        parts.append("Final pass@1 at lag L (in brackets the lag measured, mean over tokens):\n\n" + align(series))
    notes = [note for row in table.rows for note in row.notes]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def _cells(row: Row, ks: Sequence[int]) -> list[str]:
    return [
        row.arm,
        str(len(row.seeds)),
        *(number(row.accuracy[k], 3) for k in ks),
        f"{row.samples.value:.0f}",
        "never" if row.time_to_equal_s is None else f"{row.time_to_equal_s:.0f} s",
        interval(row.saving),
        f"{number(row.time_of_samples_s, 0)} s",
        percent(row.saving_of_samples),
        "–" if row.peak_bytes is None else f"{row.peak_bytes.value / 2**30:.1f}",
        *(f"{100 * row.shares[kind]:.0f} %" for kind in KINDS),
        f"{row.lag_mean.value:.1f}, ≤ {row.lag_max}",
        f"{row.generated.value:.2f}",
    ]


def staleness_cells(table: Table) -> list[list[str]]:
    """Final accuracy by loss and lag; empty without a run of the series."""
    rows = {row.arm: row for row in table.rows}
    losses = [loss for loss in STALE_LOSSES if any(stale_name(loss, lag) in rows for lag in LAGS)]
    if not losses:
        return []
    lines = [["loss", *(f"L = {lag}" for lag in LAGS)]]
    for loss in losses:
        found = [rows.get(stale_name(loss, lag)) for lag in LAGS]
        lines.append(
            [
                loss,
                *("–" if row is None else f"{number(row.accuracy[1], 3)} ({row.lag_mean.value:.1f})" for row in found),
            ]
        )
    return lines


def number(mean: Mean, digits: int) -> str:
    """Mean ± standard error."""
    error = "" if mean.error is None else f" ± {mean.error:.{digits}f}"
    return f"{mean.value:.{digits}f}{error}"


def percent(share: float | None) -> str:
    """A saving; "never" for one that was not reached."""
    if share is None:
        return "–"
    return "never" if share == -math.inf else f"{100 * share:.0f} %"


def interval(saved: Interval) -> str:
    """A saving with its interval."""
    if saved.low is None or saved.estimate is None:
        return percent(saved.estimate)
    return f"{percent(saved.estimate)} [{percent(saved.low)}, {percent(saved.high)}]"


def align(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first line is its head, the first column stands left, all others right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]

    def row(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([row(lines[0]), row(rule), *(row(line) for line in lines[1:])])
