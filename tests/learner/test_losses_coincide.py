"""Special cases in which two losses are the same."""

from __future__ import annotations

import pytest
import torch

from tests.learner.batch_kit import make_batch, near, with_lags
from tests.learner.loss_kit import METHODS, ON_POLICY, SHAPES, extras_of, of_batch

LEVELS = ("sequence", "token", "length_normalised")


@pytest.mark.parametrize("name", [name for name in ON_POLICY if name != "sft"])
def test_on_policy_every_loss_has_the_gradient_of_the_policy_gradient(name):
    options = {"normaliser": "completion", **METHODS[name]}
    batch = with_lags(make_batch(SHAPES))
    trainer = batch.generator_logprobs_T.clone().requires_grad_()
    extras = extras_of(batch, trainer, options) | {"proximal": batch.generator_logprobs_T}
    found = of_batch(batch, trainer, extras=extras, **options)
    plain = {key: value for key, value in options.items() if key in ("baseline", "advantage_scale")}
    plain |= {key: value for key, value in options.items() if key.startswith("normaliser")}
    torch.testing.assert_close(found[1], of_batch(batch, trainer, loss="policy_gradient", **plain)[1])


def test_sft_is_the_policy_gradient_without_a_baseline_for_rewards_of_0_and_1():
    batch = make_batch(SHAPES)
    trainer = near(batch.generator_logprobs_T)
    torch.testing.assert_close(
        of_batch(batch, trainer, loss="sft")[:2],
        of_batch(batch, trainer, loss="policy_gradient", baseline="none")[:2],
    )


def same_gradient(batch, first, second, **extras):
    trainer = near(batch.generator_logprobs_T)
    found, expected = (of_batch(batch, trainer, extras=extras, **options)[1] for options in (first, second))
    torch.testing.assert_close(found, expected)
    assert found.abs().max() > 0


def test_cispo_and_tis_are_rapid_per_token():
    batch = make_batch(SHAPES)
    common = {"weight_clip": 1.2, "weight_clip_low": 0.8, "advantage_scale": "std"}
    for loss in ("cispo", "tis"):
        same_gradient(batch, {"loss": loss, **common}, {"loss": "rapid", "weight_level": "token", **common})


def test_ppo_is_grpo():
    batch = make_batch(SHAPES)
    same_gradient(batch, {"loss": "ppo", "clip_high": 0.28}, {"loss": "grpo", "clip_high": 0.28})


def test_decoupled_ppo_around_the_generator_is_ppo():
    # π_prox = μ: the weight is 1, and the surrogate is around μ.
    batch = make_batch(SHAPES)
    same_gradient(
        batch,
        {"loss": "decoupled_ppo", "baseline": "plain"},
        {"loss": "ppo", "baseline": "plain"},
        proximal=batch.generator_logprobs_T,
    )


def test_icepop_is_decoupled_ppo_with_a_lower_bound():
    batch = make_batch(SHAPES)
    proximal = near(batch.generator_logprobs_T, seed=1).detach()
    bounds = {"mask_low": 0.8, "mask_high": 1.3}
    same_gradient(batch, {"loss": "icepop", **bounds}, {"loss": "decoupled_ppo", **bounds}, proximal=proximal)


def test_tis_without_a_truncation_that_acts_is_icepop_without_a_mask_that_does():
    batch = make_batch(SHAPES)
    proximal = near(batch.generator_logprobs_T, seed=1).detach()
    same_gradient(batch, {"loss": "tis", "weight_clip": None}, {"loss": "icepop", "mask_high": None}, proximal=proximal)


def test_m2po_that_keeps_all_is_token_level_rapid_without_a_clip():
    batch = make_batch(SHAPES)
    same_gradient(
        batch,
        {"loss": "m2po", "baseline": "plain"},
        {"loss": "rapid", "weight_level": "token", "weight_clip": None, "baseline": "plain"},
        kept=torch.ones(batch.num_tokens, dtype=torch.bool),
    )


def test_gspo_that_clips_nothing_is_length_normalised_rapid():
    batch = make_batch(SHAPES)
    same_gradient(
        batch,
        {"loss": "gspo", "baseline": "plain", "clip_low": 1.0, "clip_high": 1e9},
        {"loss": "rapid", "weight_level": "length_normalised", "weight_clip": None, "baseline": "plain"},
    )


def test_a_lag_factor_of_one_is_the_same_clip_at_any_lag():
    batch = make_batch(SHAPES)
    common = {"weight_clip": 1.2, "weight_clip_low": 0.8}
    same_gradient(with_lags(batch), {"clip_lag_factor": 0.999999, **common}, common)


def test_policy_gradient_is_rapid_with_all_weights_clipped_to_one():
    batch = make_batch(SHAPES)
    # A trainer that gives every token more than the generator did, so that a clip at 1 makes all weights 1.
    trainer = (batch.generator_logprobs_T + 0.1).requires_grad_()
    rapid = of_batch(batch, trainer, weight_clip=1.0, baseline="leave_one_out")
    plain = of_batch(batch, trainer, loss="policy_gradient", baseline="leave_one_out")
    torch.testing.assert_close(rapid[:2], plain[:2])


def test_unclipped_grpo_has_the_gradient_of_token_level_rapid():
    batch = make_batch(SHAPES)
    trainer = near(batch.generator_logprobs_T)
    # A·∇ρ = ρ·A·∇log π
    grpo = of_batch(batch, trainer, loss="grpo", baseline="plain", clip_low=1.0, clip_high=1e9)
    rapid = of_batch(batch, trainer, weight_level="token", weight_clip=None, baseline="plain")
    torch.testing.assert_close(grpo[1], rapid[1])


def test_levels_coincide_for_completions_of_one_token():
    batch = make_batch([(3, [1, 1, 1]), (2, [1, 1, 1])])
    trainer = near(batch.generator_logprobs_T)
    sequence, token, normalised = (of_batch(batch, trainer, weight_level=level)[:2] for level in LEVELS)
    torch.testing.assert_close(sequence, token)
    torch.testing.assert_close(sequence, normalised)
