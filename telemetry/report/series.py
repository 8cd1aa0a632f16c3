"""Records as columns of numbers, thinned to what a picture can show."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from telemetry.record import Record, elapsed_s
from telemetry.report.charts import CHARTS
from telemetry.summary import mean

MAX_POINTS = 1200
Column = list[float | None]


def columns(records: Sequence[Record], max_points: int = MAX_POINTS) -> dict[str, Column]:
    """A column for each curve of the report, "step" and "time" (working seconds) beside them.

    More records than `max_points` become means of equal stretches.
    """
    keys = sorted({line.key for chart in CHARTS for line in chart.lines})
    found: dict[str, Column] = {"step": [record["step"] for record in records], "time": list(elapsed_s(list(records)))}
    found |= {key: [_value(record, key) for record in records] for key in keys}
    return {key: [_short(value) for value in _thin(column, max_points)] for key, column in found.items()}


def _value(record: Record, key: str) -> float | None:
    value: Any = record
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) else None


def _thin(column: Column, max_points: int) -> Column:
    count = len(column)
    if count <= max_points:
        return column
    bounds = [index * count // max_points for index in range(max_points + 1)]
    return [mean(column[low:high]) for low, high in itertools.pairwise(bounds)]


def _short(value: float | None) -> float | None:
    """Six digits: more cannot be seen, and they are most of the page's bytes."""
    return None if value is None else float(f"{value:.6g}")
