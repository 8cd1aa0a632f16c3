"""pass@k against the definition."""

from __future__ import annotations

from itertools import combinations

import pytest

from actors.evaluation.passk import pass_at_k


def test_half_of_two() -> None:
    # One right among two: drawing one hits it half of the time, drawing both always.
    assert pass_at_k(2, 1, 1) == 0.5
    assert pass_at_k(2, 1, 2) == 1.0


@pytest.mark.parametrize(("n", "c", "k"), [(8, 3, 2), (8, 0, 4), (8, 8, 1), (5, 2, 5)])
def test_equals_the_share_of_subsets_with_a_right_one(n: int, c: int, k: int) -> None:
    subsets = list(combinations(range(n), k))
    share = sum(any(member < c for member in subset) for subset in subsets) / len(subsets)
    assert pass_at_k(n, c, k) == pytest.approx(share)


@pytest.mark.parametrize(("n", "c", "k"), [(2, 1, 3), (2, 3, 1), (2, 1, 0), (2, -1, 1)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="expected 1 <= k <= n"):
        pass_at_k(n, c, k)
