"""Which estimators are unbiased, on a policy whose true gradient can be summed (`bench.estimator_bias`)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.estimator_bias import (
    ESTIMATORS,
    GROUP_SIZE,
    RECOMPUTED,
    UNCLIPPED,
    Sample,
    draw,
    group_gradients,
    make_line,
    make_sharp_line,
    make_task,
    measure,
)

pytestmark = pytest.mark.slow

TASK = make_task(2)
LINE = make_line(TASK, 32, 3)
NUM_GROUPS = 20_000


@pytest.fixture(scope="module")
def samples() -> dict[int, Sample]:
    return {lag: draw(TASK, LINE, lag, NUM_GROUPS) for lag in (0, 4, 8, 16)}


def expectation(lag: int, **options: object) -> torch.Tensor:
    """E ĝ, summed over all completions in place of drawn ones: each is a group of its own, by its probability."""
    sample = replace(draw(TASK, LINE, lag, 1), drawn=torch.arange(len(TASK.rewards))[:, None])
    shares = TASK.logprobs(sample.generator).sum(1).exp()
    return (shares[:, None] * group_gradients(sample, {"loss": "rapid", "baseline": "none", **options})).sum(0)


def test_the_table_is_a_policy() -> None:
    assert TASK.logprobs(LINE[0]).sum(1).exp().sum() == pytest.approx(1)
    assert len(TASK.rewards) == 40  # 1 that ends at once, 3 after one token, 3·3·4 after two
    # The gradient of a logit by finite differences.
    moved = LINE[-1].clone()
    moved[0, 1] += 1e-6
    slope = (TASK.expected_reward(moved) - TASK.expected_reward(LINE[-1])) / 1e-6
    assert float(TASK.gradient(LINE[-1])[0, 1]) == pytest.approx(float(slope), abs=1e-6)


@pytest.mark.parametrize("lag", [0, 1, 8, 32])
def test_unclipped_sequence_weights_are_exactly_unbiased_at_any_lag(lag: int) -> None:
    torch.testing.assert_close(expectation(lag, weight_clip=None), TASK.gradient(LINE[-1]).flatten())


@pytest.mark.parametrize(
    "options", [{"weight_clip": 1.2}, {"weight_clip": None, "weight_level": "token"}, {"loss": "policy_gradient"}]
)
def test_a_clip_a_token_level_or_no_weight_is_exactly_unbiased_on_policy_alone(options: dict) -> None:
    truth = TASK.gradient(LINE[-1]).flatten()
    torch.testing.assert_close(expectation(0, **options), truth)
    assert (expectation(16, **options) - truth).norm() > 0.05 * truth.norm()


@pytest.mark.parametrize("lag", [0, 4, 8, 16])
def test_the_mean_of_draws_matches_the_true_gradient_within_its_standard_error(lag: int, samples) -> None:
    found = group_gradients(samples[lag], UNCLIPPED)
    errors = found.mean(0) - TASK.gradient(LINE[-1]).flatten()
    standard = found.std(0) / NUM_GROUPS**0.5
    drawn = standard > 0
    z = errors[drawn] / standard[drawn]
    # Of 52 numbers the largest is about 2.5, and the mean square 1.
    assert z.abs().max() < 4
    assert z.square().mean() < 1.6
    # Fine enough to see a bias of three per cent.
    assert measure(samples[lag], UNCLIPPED)["bias_standard_error"] < 0.015


@pytest.mark.parametrize("lag", [0, 8])
def test_a_plain_baseline_takes_its_own_share_from_the_length_and_nothing_from_the_direction(lag, samples) -> None:
    # Σ_j r_j / G holds r_i / G of the completion itself: E ĝ = (1 − 1/G) g.
    found = measure(samples[lag], {**UNCLIPPED, "baseline": "plain"})
    assert found["bias"] == pytest.approx(1 / GROUP_SIZE, abs=0.02)
    assert found["cosine"] > 0.999


def test_a_weighted_baseline_does_so_on_policy_and_takes_more_off_policy(samples) -> None:
    biases = [measure(samples[lag], {**UNCLIPPED, "baseline": "weighted"})["bias"] for lag in (0, 8, 16)]
    assert biases[0] == pytest.approx(1 / GROUP_SIZE, abs=0.02)
    assert biases[1] > biases[0] + 0.04
    assert biases[2] > biases[1] + 0.1


@pytest.fixture(scope="module")
def nearly_right() -> Sample:
    """Of policies that are right in 99 of 100 completions."""
    sample = draw(TASK, make_sharp_line(TASK, 32, 2.5, 3), 8, NUM_GROUPS)
    assert TASK.expected_reward(sample.trainer) > 0.95
    return sample


def test_a_weighted_baseline_is_unsound_where_most_groups_are_right_throughout(nearly_right: Sample) -> None:
    # The share of its own that it takes does not shrink with the gradient. Groups without signal bring it in.
    everywhere = measure(nearly_right, {"loss": "rapid"})
    filtered = measure(nearly_right, {"loss": "rapid"}, is_filtered=True)
    assert everywhere["cosine"] < 0.85
    assert everywhere["bias"] > 0.5
    assert filtered["cosine"] > 0.96
    assert filtered["bias"] < 0.35


@pytest.mark.parametrize("baseline", ["plain", "self_normalised"])
def test_baselines_that_equal_rewards_leave_at_zero_stay_sound_there_with_or_without_the_filter(
    baseline: str, nearly_right: Sample
) -> None:
    options = {"loss": "rapid", "baseline": baseline}
    found = [measure(nearly_right, options, is_filtered=is_filtered) for is_filtered in (False, True)]
    assert found[0]["bias"] == pytest.approx(found[1]["bias"], abs=1e-6)
    assert found[0]["bias"] < 0.2
    assert found[0]["cosine"] > 0.99


def test_a_reward_of_one_more_adds_bias_to_a_weighted_baseline_and_not_to_a_plain_one(samples) -> None:
    shifted = replace(samples[8], task=replace(TASK, rewards=TASK.rewards + 1))
    torch.testing.assert_close(TASK.gradient(LINE[-1]), shifted.task.gradient(LINE[-1]))
    plain, weighted = ({"loss": "rapid", "baseline": baseline} for baseline in ("plain", "weighted"))
    assert measure(shifted, plain)["bias"] == pytest.approx(measure(samples[8], plain)["bias"], abs=1e-6)
    assert measure(shifted, weighted)["bias"] > measure(samples[8], weighted)["bias"] + 0.05


def test_leave_one_out_adds_bias_where_weights_are_clipped() -> None:
    # E w̄ ∇log π is 0 for the whole weight alone, so that a baseline that does not depend on the completion is no bias.
    sample = draw(TASK, LINE, 16, 1)
    shares = TASK.logprobs(sample.generator).sum(1).exp()
    everyone = replace(
        sample,
        task=replace(TASK, rewards=torch.ones_like(TASK.rewards)),
        drawn=torch.arange(len(TASK.rewards))[:, None],
    )
    for clip, is_zero in ((None, True), (1.2, False)):
        options = {"loss": "rapid", "weight_clip": clip, "baseline": "none"}
        mean = (shares[:, None] * group_gradients(everyone, options)).sum(0)
        assert bool(mean.norm() < 1e-12) is is_zero


def test_decoupled_ppo_around_the_generator_is_ppo(samples) -> None:
    proximal = {"loss": "decoupled_ppo", "baseline": "leave_one_out", RECOMPUTED: 1.0}
    ppo = {"loss": "ppo", "baseline": "leave_one_out"}
    torch.testing.assert_close(group_gradients(samples[16], proximal), group_gradients(samples[16], ppo))


def test_a_tighter_clip_adds_more_bias_and_takes_more_spread(samples) -> None:
    clips = [measure(samples[16], {**UNCLIPPED, "weight_clip": clip}) for clip in (None, 2.0, 1.2)]
    assert [row["is_seen"] for row in clips] == [False, True, True]
    assert clips[1]["bias"] < clips[2]["bias"]
    assert clips[0]["spread"] > clips[1]["spread"] > clips[2]["spread"]


def test_every_estimator_of_the_table_is_unbiased_or_a_multiple_of_it_on_policy(samples) -> None:
    for name, options in ESTIMATORS.items():
        # A length normaliser weighs completions, and so turns the gradient even on-policy.
        if "length" not in name or "length-normalised" in name:
            assert measure(samples[0], options)["cosine"] > 0.998, name
