from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from learner.advantages import group_advantages

REWARDS = torch.tensor([1.0, 0.0, 0.0, 1.0])
WEIGHTS = torch.tensor([2.0, 1.0, 1.0, 0.5])
ONE_GROUP = torch.zeros(4, dtype=torch.int64)
BASELINES = ("weighted", "plain", "leave_one_out", "self_normalised", "none")


def advantages(rewards, weights, group_of, baseline, scale="none"):
    return group_advantages(rewards, weights, group_of, baseline=baseline, advantage_scale=scale)


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        # Σ w r = 2·1 + 0.5·1 = 2.5
        ("weighted", [0.625] * 4),  # 2.5 / 4
        ("plain", [0.5] * 4),  # (1 + 1) / 4
        ("leave_one_out", [0.5 / 3, 2.5 / 3, 2.5 / 3, 2.0 / 3]),  # (2.5 − own w r) / 3
        ("self_normalised", [2.5 / 4.5] * 4),  # Σ w = 4.5
        ("none", [0.0] * 4),
    ],
)
def test_baselines_worked_by_hand(baseline, expected):
    found, baselines = advantages(REWARDS, WEIGHTS, ONE_GROUP, baseline)
    assert baselines.tolist() == pytest.approx(expected)
    assert found.tolist() == pytest.approx([r - b for r, b in zip(REWARDS.tolist(), expected, strict=True)])


def test_std_divides_by_the_deviation_of_the_sample():
    # mean 0.5, four squares of 0.25 over 3: variance 1/3, deviation 0.57735; advantage ±0.5 / 0.57735
    found, _ = advantages(REWARDS, WEIGHTS, ONE_GROUP, "plain", "std")
    assert found.tolist() == pytest.approx([0.866025, -0.866025, -0.866025, 0.866025], abs=1e-5)


@pytest.mark.parametrize("baseline", BASELINES)
def test_std_of_equal_rewards_gives_zero_off_policy_too(baseline):
    # A weighted baseline differs from the rewards here: 0.3 · 4.5 / 4 against 0.3.
    found, _ = advantages(torch.full((4,), 0.3), WEIGHTS, ONE_GROUP, baseline, "std")
    assert found.tolist() == [0, 0, 0, 0]


def test_groups_do_not_touch_each_other():
    rewards, weights = torch.cat([REWARDS, 10 * REWARDS]), torch.cat([WEIGHTS, WEIGHTS])
    both, _ = advantages(rewards, weights, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]), "weighted")
    alone, _ = advantages(REWARDS, WEIGHTS, ONE_GROUP, "weighted")
    torch.testing.assert_close(both, torch.cat([alone, 10 * alone]))


def test_advantages_carry_no_gradient():
    found, baselines = advantages(REWARDS, WEIGHTS.clone().requires_grad_(), ONE_GROUP, "weighted")
    assert not found.requires_grad
    assert not baselines.requires_grad


@given(st.lists(st.floats(-2, 2, width=32), min_size=2, max_size=8), st.sampled_from(["weighted", "self_normalised"]))
def test_with_weights_one_every_mean_is_the_plain_mean(rewards, baseline):
    values, group_of = torch.tensor(rewards), torch.zeros(len(rewards), dtype=torch.int64)
    found, _ = advantages(values, torch.ones_like(values), group_of, baseline)
    plain, _ = advantages(values, torch.ones_like(values), group_of, "plain")
    torch.testing.assert_close(found, plain)


@given(st.lists(st.floats(-2, 2, width=32), min_size=2, max_size=8))
def test_leave_one_out_with_weights_one_is_the_plain_advantage_times_g_over_g_minus_one(rewards):
    # r_i − (S − r_i)/(G−1) = (G r_i − S)/(G−1) = G/(G−1) · (r_i − S/G)
    values, size = torch.tensor(rewards), len(rewards)
    group_of = torch.zeros(size, dtype=torch.int64)
    found, _ = advantages(values, torch.ones_like(values), group_of, "leave_one_out")
    plain, _ = advantages(values, torch.ones_like(values), group_of, "plain")
    torch.testing.assert_close(found, plain * size / (size - 1), atol=1e-5, rtol=1e-4)


@given(st.permutations(range(6)), st.sampled_from(BASELINES), st.sampled_from(["none", "std"]))
def test_order_of_completions_does_not_matter(order, baseline, scale):
    rewards = torch.tensor([1.0, 0.0, 0.25, 1.0, 0.0, 0.5])
    weights = torch.tensor([2.0, 0.5, 1.0, 0.1, 1.5, 0.7])
    group_of = torch.tensor([0, 0, 0, 1, 1, 1])
    whole, _ = advantages(rewards, weights, group_of, baseline, scale)
    index = torch.tensor(order)
    mixed, _ = advantages(rewards[index], weights[index], group_of[index], baseline, scale)
    torch.testing.assert_close(mixed, whole[index])


def test_leave_one_out_of_a_group_of_one_is_refused():
    with pytest.raises(ValueError, match="at least two"):
        advantages(torch.ones(1), torch.ones(1), torch.zeros(1, dtype=torch.int64), "leave_one_out")


@pytest.mark.parametrize(("baseline", "scale"), [("median", "none"), ("plain", "range")])
def test_unknown_switches_are_refused(baseline, scale):
    with pytest.raises(ValueError, match="expected"):
        advantages(REWARDS, WEIGHTS, ONE_GROUP, baseline, scale)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="equal lengths"):
        advantages(REWARDS, WEIGHTS[:3], ONE_GROUP, "plain")
