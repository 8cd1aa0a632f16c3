from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.packing import choose_row_size, count_micro_batches, pack_micro_batches
from tests.learner.batch_kit import make_batch

SHAPES = [(3, [2, 4, 1]), (5, [3, 3, 2]), (1, [1, 5, 2]), (4, [2, 2, 2])]
shapes = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(1, 5), min_size=1, max_size=4)), min_size=1, max_size=6
)


def pack(batch, groups=None, **options):
    options = {"max_tokens": 40, "attention_cost": 0.0, **options}
    return pack_micro_batches(batch, range(batch.num_groups) if groups is None else groups, **options)


def test_a_shared_row_worked_by_hand():
    batch = make_batch([(3, [1, 2])])
    (micro_batch,) = pack(batch)
    prompt, tokens = batch.prompt_ids_P.tolist(), batch.token_ids_T.tolist()
    assert micro_batch.input_ids.tolist() == [prompt + tokens]
    assert micro_batch.position_ids.tolist() == [[0, 1, 2, 3, 3, 4]]
    # The last prompt token predicts both first tokens; place 4 predicts the last.
    assert micro_batch.predict_index.tolist() == [2, 2, 4]
    assert micro_batch.target_ids.tolist() == tokens
    assert micro_batch.token_index.tolist() == [0, 1, 2]
    assert micro_batch.attention_mask is not None
    assert micro_batch.attention_mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 0, 1, 0],
        [1, 1, 1, 0, 1, 1],
    ]


def test_the_plain_layout_has_one_completion_a_row_and_no_mask():
    batch = make_batch(SHAPES)
    for micro_batch in pack(batch, share_prompts=False):
        assert micro_batch.attention_mask is None
        assert len(micro_batch.input_ids) == 3 * len(micro_batch.groups)
        width = micro_batch.input_ids.shape[1]
        assert micro_batch.position_ids.tolist() == [list(range(width))] * len(micro_batch.input_ids)


def test_long_completions_do_not_share_a_row():
    # P = 55: sharing saves 7 prompts, 385 tokens, and 8 short completions cost little attention.
    assert choose_row_size(55, [10] * 8, 1 / 1152) == 8
    # 8 x 512 in one row of 4151: 4151² / 1152 = 14958 tokens' worth of attention, against 8 · 567² / 1152 = 2232.
    assert choose_row_size(55, [512] * 8, 1 / 1152) == 1


def test_row_size_is_the_cheapest_of_all():
    # cost(size) = tokens + 0.01 · Σ rows²: one row 40 + 0.01·1600 = 56; two 50 + 0.01·(2·625) = 62.5;
    # with 0.1: one row 40 + 160 = 200; rows of 2: 50 + 125 = 175; four rows: 70 + 0.1·4·17.5²= 192.5.
    lengths = [7, 7, 8, 8]
    assert choose_row_size(10, lengths, 0.01) == 4
    assert choose_row_size(10, lengths, 0.1) == 2


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(1, 60), st.sampled_from([0.0, 0.05, 1.0]), st.booleans())
def test_every_token_is_predicted_once_from_its_own_context(shapes, max_tokens, cost, share):
    batch = make_batch(shapes)
    seen = []
    for micro_batch in pack(batch, max_tokens=max_tokens, attention_cost=cost, share_prompts=share):
        seen += micro_batch.token_index.tolist()
        assert torch.equal(micro_batch.target_ids, batch.token_ids_T[micro_batch.token_index])
        for place, token in zip(micro_batch.predict_index.tolist(), micro_batch.token_index.tolist(), strict=True):
            assert visible_tokens(micro_batch, place) == context_of(batch, token)
    assert sorted(seen) == list(range(batch.num_tokens))


def visible_tokens(micro_batch, place):
    """(position, token) of all that a place sees."""
    row, column = divmod(place, micro_batch.input_ids.shape[1])
    places = torch.arange(column + 1)
    if micro_batch.attention_mask is not None:
        places = torch.nonzero(micro_batch.attention_mask[row, 0, column]).flatten()
    positions, tokens = micro_batch.position_ids[row, places], micro_batch.input_ids[row, places]
    return list(zip(positions.tolist(), tokens.tolist(), strict=True))


def context_of(batch, token):
    """The prompt and the tokens of the completion before this one, numbered."""
    completion = batch.completion_of_T[token]
    group = int(batch.group_of_C[completion])
    start = int(batch.prompt_lengths_N[:group].sum())
    prompt = batch.prompt_ids_P[start : start + int(batch.prompt_lengths_N[group])].tolist()
    first = int(torch.nonzero(batch.completion_of_T == completion)[0])
    return list(enumerate(prompt + batch.token_ids_T[first:token].tolist()))


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(1, 60), st.integers(1, 6))
def test_groups_stay_whole_and_budgets_are_kept(shapes, max_tokens, min_count):
    batch = make_batch(shapes)
    min_count = min(min_count, batch.num_groups)
    micro_batches = pack(batch, max_tokens=max_tokens, min_count=min_count)
    assert len(micro_batches) >= min_count
    assert sorted(group for each in micro_batches for group in each.groups) == list(range(batch.num_groups))
    for each in micro_batches:
        assert each.input_ids.numel() <= max_tokens or len(each.groups) == 1
        # The tokens are those of select_groups, in its order.
        assert torch.equal(batch.select_groups(each.groups).token_ids_T, each.target_ids)


@given(shapes, st.integers(1, 60))
def test_the_count_is_known_without_packing(shapes, max_tokens):
    batch = make_batch(shapes)
    options = {"max_tokens": max_tokens, "attention_cost": 0.05}
    groups = range(batch.num_groups)
    assert count_micro_batches(batch, groups, **options) == len(pack_micro_batches(batch, groups, **options))


def test_groups_of_one_rank_keep_their_places_in_the_whole_batch():
    batch = make_batch(SHAPES)
    (micro_batch,) = pack(batch, groups=[1, 3], max_tokens=100)
    assert micro_batch.groups == (1, 3)
    assert micro_batch.token_index.tolist() == [*range(7, 15), *range(23, 29)]


def test_more_micro_batches_than_groups_are_refused():
    with pytest.raises(ValueError, match="at most the number of groups"):
        pack(make_batch(SHAPES), min_count=5)
    with pytest.raises(ValueError, match="no groups"):
        pack(make_batch(SHAPES), groups=[])
