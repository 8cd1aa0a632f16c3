"""The swim-lanes: what each process did in the run's first and in its last minutes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from telemetry.timeline import ACTIVITIES, Span

WINDOW_S = 180.0
_MAX_SPANS, _MAX_SPANS_IN_ALL = 2500, 30_000
"""In one window, of one process and of all. More could not be told apart, and would make the page heavy."""


def lanes(timeline: Mapping[str, Sequence[Span]]) -> dict[str, Any] | None:
    """The windows with the spans of each process in them; None where nothing was recorded.

    Times are seconds since the first process began. A span is [start, end, what, of].
    """
    spans = [span for process in timeline.values() for span in process]
    if not spans:
        return None
    limit = min(_MAX_SPANS, _MAX_SPANS_IN_ALL // len(timeline))
    begin, end = min(span.start_s for span in spans), max(span.end_s for span in spans)
    return {
        "windows": [
            {
                "start": low,
                "end": high,
                "processes": [
                    {"name": name, "spans": _visible(process, begin, low, high, limit)}
                    for name, process in timeline.items()
                ],
            }
            for low, high in _windows(end - begin)
        ],
    }


def _windows(length_s: float) -> list[tuple[float, float]]:
    if length_s <= 2 * WINDOW_S:
        return [(0.0, length_s)]
    return [(0.0, WINDOW_S), (length_s - WINDOW_S, length_s)]


def _visible(spans: Sequence[Span], begin: float, low: float, high: float, limit: int) -> list[list[Any]]:
    found: list[list[Any]] = []
    for span in spans:
        start, end = max(span.start_s - begin, low), min(span.end_s - begin, high)
        if end > start:
            found.append([round(start, 3), round(end, 3), span.what, span.of])
    return _merge_short(found, (high - low) / limit) if len(found) > limit else found


def _merge_short(spans: list[list[Any]], least_s: float) -> list[list[Any]]:
    """Spans too short to be seen become part of the one before."""
    kept: list[list[Any]] = []
    for span in spans:
        if kept and span[1] - kept[-1][0] < least_s and span[0] - kept[-1][1] < least_s:
            kept[-1][1] = span[1]
        else:
            kept.append(span)
    return kept


def time_shares(spans: Sequence[Span]) -> dict[str, float]:
    """Share of each activity in the recorded time of a process, in the order of ACTIVITIES."""
    sums = dict.fromkeys(ACTIVITIES, 0.0)
    for span in spans:
        sums[span.what] = sums.get(span.what, 0.0) + span.end_s - span.start_s
    total = sum(sums.values())
    return {what: seconds / total for what, seconds in sums.items() if seconds} if total else {}
