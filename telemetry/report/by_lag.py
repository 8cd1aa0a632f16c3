"""How far off-policy the run trained, by the lag of the tokens: the heatmap and the figures of each lag."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from telemetry.record import DIAGNOSTICS, Record

MAX_COLUMNS = 120
QUANTITIES = (
    "ratio_mean",
    "ratio_p05",
    "ratio_p50",
    "ratio_p95",
    "clipped_fraction",
    "ess_fraction",
    "kl_behaviour",
)
Row = dict[str, Any]


def lag_rows(records: Sequence[Record]) -> list[Row]:
    """Diagnostics by lag over these records, each step weighed by its tokens of that lag.

    A row has "lag", "tokens", "share" of all tokens, and each of QUANTITIES (None where nothing was measured).
    """
    sums: dict[int, dict[str, tuple[float, float]]] = {}
    tokens: dict[int, int] = {}
    for record in records:
        for lag, values in _by_lag(record).items():
            count = values.get("tokens") or 0
            tokens[lag] = tokens.get(lag, 0) + count
            for key in QUANTITIES:
                if values.get(key) is not None:
                    total, weight = sums.setdefault(lag, {}).get(key, (0.0, 0.0))
                    sums[lag][key] = (total + count * values[key], weight + count)
    everything = sum(tokens.values())
    rows = []
    for lag in sorted(tokens):
        means = {key: total / weight for key, (total, weight) in sums.get(lag, {}).items() if weight}
        share = tokens[lag] / everything if everything else None
        rows.append({**dict.fromkeys(QUANTITIES), **means, "lag": lag, "tokens": tokens[lag], "share": share})
    return rows


def lag_heatmap(records: Sequence[Record], bound: int, max_columns: int = MAX_COLUMNS) -> dict[str, Any] | None:
    """Share of each lag in the tokens of each stretch of steps; None where no lag was recorded.

    "columns" are [first step, last step], "shares" one list a column with the share of lag 0, 1, ....
    """
    known = [record for record in records if _by_lag(record)]
    if not known:
        return None
    num_lags = 1 + max(bound, *(max(_by_lag(record)) for record in known))
    count = min(len(known), max_columns)
    bounds = [index * len(known) // count for index in range(count + 1)]
    stretches = [known[low:high] for low, high in itertools.pairwise(bounds)]
    return {
        "bound": bound,
        "columns": [[stretch[0]["step"], stretch[-1]["step"]] for stretch in stretches],
        "shares": [_shares(stretch, num_lags) for stretch in stretches],
    }


def _shares(records: Sequence[Record], num_lags: int) -> list[float]:
    tokens = [0.0] * num_lags
    for record in records:
        for lag, values in _by_lag(record).items():
            tokens[lag] += values.get("tokens") or 0
    total = sum(tokens) or 1.0
    return [round(count / total, 4) for count in tokens]


def _by_lag(record: Record) -> dict[int, dict[str, Any]]:
    found = (record.get(DIAGNOSTICS) or {}).get("by_lag") or {}
    return {int(label): values for label, values in found.items()}
