"""Which buffered groups make a batch: pure functions of their lags.

Each takes `lags`, the lags of the buffered groups in the order of the ledger, and returns the positions of
`count` of them, ascending, or None where fewer than `count` lie within the bound.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def fifo(lags: Sequence[int], count: int, max_lag: int) -> list[int] | None:
    """The groups with the oldest weights, among equals the first of the ledger.

    Oldest weights first is earliest deadline first: what the admission rule let in then stays within the bound
    even when a prompt that was given back returns with fresh weights and an early place in the ledger.
    """
    eligible = _within(lags, max_lag)
    if len(eligible) < count:
        return None
    return sorted(sorted(eligible, key=lambda position: (-lags[position], position))[:count])


def lag_weighted(
    lags: Sequence[int], count: int, max_lag: int, *, decay: float, rng: np.random.Generator
) -> list[int] | None:
    """A random choice without replacement, a group of lag l drawn with weight decay^l.

    The weighted reservoir of Efraimidis and Spirakis (2006): the `count` largest u^(1/w), here as log(u) / w.
    """
    eligible = _within(lags, max_lag)
    if len(eligible) < count:
        return None
    weights = decay ** np.array([lags[position] for position in eligible], dtype=np.float64)
    keys = -rng.exponential(size=len(eligible)) / weights
    chosen = np.argsort(-keys, kind="stable")[:count]
    return sorted(eligible[position] for position in chosen.tolist())


def _within(lags: Sequence[int], max_lag: int) -> list[int]:
    return [position for position, lag in enumerate(lags) if lag <= max_lag]
