from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.batch import build_batch, split_groups
from protocol.group import Group
from protocol.version import Lineage, PolicyVersion
from tests.learner.batch_kit import make_batch, make_group

SHAPES = [(3, [2, 4, 1]), (5, [3, 2]), (1, [1, 5, 2])]


def respan(group: Group, span_counts, span_lengths, incarnations, steps) -> Group:
    """The same group with other version spans."""
    fields = {name: getattr(group, name) for name in group.__struct_fields__}
    spans = {
        "span_counts": span_counts,
        "span_lengths": span_lengths,
        "span_incarnations": incarnations,
        "span_steps": steps,
    }
    return Group(**fields | {name: np.array(values, dtype=np.int32) for name, values in spans.items()})


def test_groups_lie_end_to_end():
    batch = make_batch(SHAPES)
    assert (batch.num_groups, batch.num_completions, batch.num_tokens) == (3, 8, 20)
    assert batch.lengths_C.tolist() == [2, 4, 1, 3, 2, 1, 5, 2]
    assert batch.group_of_C.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert batch.completion_of_T.tolist() == [0] * 2 + [1] * 4 + [2] + [3] * 3 + [4] * 2 + [5] + [6] * 5 + [7] * 2
    assert batch.group_tokens() == [10, 10, 9]
    second = make_group(1, 5, [3, 2])
    assert batch.prompt_ids_P[3:8].tolist() == second.prompt_token_ids.tolist()
    assert batch.token_ids_T[7:12].tolist() == second.token_ids.tolist()
    assert batch.rewards_C[3:5].tolist() == second.rewards.tolist()


def test_every_token_has_the_lag_of_its_own_span():
    # Completion 0: one token of 1.2, two of 1.3. Completion 1: two tokens of 2.3.
    group = respan(make_group(0, 4, [3, 2]), [2, 1], [1, 2, 2], [1, 1, 2], [2, 3, 3])
    # Incarnation 2 began at step 2; trained at 2.4: 1.2 is an ancestor, lag 2; 1.3 lies one step off the line,
    # (3 − 2) + (4 − 2) = 3; 2.3 has lag 1.
    batch = build_batch([group], Lineage((2,)), PolicyVersion(2, 4))
    assert batch.lags_T.tolist() == [2, 3, 3, 1, 1]


def test_a_version_after_the_trained_one_is_refused():
    group = respan(make_group(0, 4, [3]), [1], [3], [1], [5])
    with pytest.raises(ValueError, match=r"1\.5 comes after 1\.4"):
        build_batch([group], Lineage(), PolicyVersion(1, 4))


def test_no_groups_are_refused():
    with pytest.raises(ValueError, match="no groups"):
        build_batch([], Lineage(), PolicyVersion(1, 0))


def test_selected_groups_are_the_batch_of_those_groups():
    batch = make_batch(SHAPES)
    groups = [make_group(index, prompt, lengths) for index, (prompt, lengths) in enumerate(SHAPES)]
    selected, built = batch.select_groups([2, 0]), build_batch([groups[2], groups[0]], Lineage(), PolicyVersion(1, 0))
    for name, expected in vars(built).items():
        assert torch.equal(getattr(selected, name), expected), name
        assert getattr(selected, name).dtype == expected.dtype, name


@given(st.lists(st.integers(1, 500), min_size=1, max_size=10), st.integers(1, 4))
def test_ranks_get_equally_many_groups_and_every_group_once(costs, num_ranks):
    costs = costs * num_ranks
    hands = split_groups(costs, num_ranks)
    assert sorted(group for hand in hands for group in hand) == list(range(len(costs)))
    assert {len(hand) for hand in hands} == {len(costs) // num_ranks}
    assert all(hand == sorted(hand) for hand in hands)
    # Each round gives the dearest group to the rank with the least, so that no gap outgrows one group.
    totals = [sum(costs[group] for group in hand) for hand in hands]
    assert max(totals) - min(totals) <= max(costs)


def test_groups_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiple of the ranks"):
        split_groups([1, 1, 1], 2)
