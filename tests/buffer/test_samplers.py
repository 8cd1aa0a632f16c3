"""Samplers: which groups, and never one beyond the bound."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from buffer.admission import capacity, grantable
from buffer.samplers import fifo, lag_weighted

LAGS = st.lists(st.integers(0, 6), max_size=30)


def draw(lags: list[int], count: int, max_lag: int, decay: float = 0.5, seed: int = 0) -> list[int] | None:
    return lag_weighted(lags, count, max_lag, decay=decay, rng=np.random.default_rng(seed))


@given(LAGS, st.integers(1, 8), st.integers(0, 6), st.integers(0, 5))
def test_no_sampler_goes_beyond_the_bound_or_takes_a_group_twice(
    lags: list[int], count: int, max_lag: int, seed: int
) -> None:
    enough = sum(lag <= max_lag for lag in lags) >= count
    for chosen in (fifo(lags, count, max_lag), draw(lags, count, max_lag, seed=seed)):
        assert (chosen is not None) == enough
        if chosen is not None:
            assert len(chosen) == count
            assert chosen == sorted(set(chosen))
            assert all(lags[position] <= max_lag for position in chosen)


def test_fifo_takes_the_oldest_weights_then_the_order_of_the_ledger() -> None:
    assert fifo([0, 0, 0, 0], 2, 5) == [0, 1]
    assert fifo([0, 1, 0, 2], 3, 5) == [0, 1, 3]
    assert fifo([0, 1, 0, 2], 2, 1) == [0, 1]
    assert fifo([3, 3], 1, 2) is None


def test_lag_weighted_is_a_function_of_its_generator() -> None:
    lags = [0, 1, 2, 3] * 5
    assert draw(lags, 6, 3, seed=1) == draw(lags, 6, 3, seed=1)
    assert len({tuple(draw(lags, 6, 3, seed=seed) or ()) for seed in range(20)}) > 10


def test_lag_weighted_draws_in_proportion_to_its_weights() -> None:
    # One of two groups, weights 1 and 0.25: the fresh one in 1 / 1.25 = 80 % of draws.
    chosen = Counter((draw([0, 2], 1, 2, decay=0.5, seed=seed) or [9])[0] for seed in range(2000))
    assert abs(chosen[0] / 2000 - 0.8) < 0.03


def test_capacity_shrinks_with_the_lag_of_the_weights_and_at_the_end() -> None:
    def of(lag: int, batches_left: int = 99) -> int:
        return capacity(lag, max_staleness=2, batch_groups=10, batches_left=batches_left)

    assert [of(lag) for lag in range(5)] == [30, 20, 10, 0, 0]
    assert [of(0, left) for left in (3, 2, 1, 0)] == [30, 20, 10, 0]


def test_actors_share_the_room_and_never_exceed_it() -> None:
    assert grantable(24, leased=0, held=0, num_actors=1) == 24
    assert grantable(24, leased=0, held=0, num_actors=2) == 12
    assert grantable(24, leased=20, held=8, num_actors=2) == 4
    assert grantable(25, leased=24, held=0, num_actors=2) == 1
    assert grantable(10, leased=12, held=0, num_actors=2) == 0
    assert grantable(10, leased=9, held=9, num_actors=2) == 0
