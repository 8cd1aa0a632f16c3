from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.config import AlgorithmConfig
from learner.losses import Switches, Tokens, policy_loss
from learner.losses.weights import importance_weights
from tests.learner.batch_kit import make_batch, near, with_lags
from tests.learner.loss_kit import METHODS, ON_POLICY, SHAPES, extras_of, loss_of, of_batch, tokens_of

# Two completions of one group: y0 of two tokens, y1 of one.
TRAINER = [-1.0, -2.0, -1.0]
GENERATOR = [-1.5, -2.5, -0.5]
COMPLETION_OF = torch.tensor([0, 0, 1])
GROUP_OF = torch.tensor([0, 0])
REWARDS = torch.tensor([1.0, 0.5])
# log w0 = (−1 + 1.5) + (−2 + 2.5) = 1, so w0 = e, truncated to 2; log w1 = −0.5, so w1 = 0.606531.
W1 = math.exp(-0.5)
# b = (2·1 + 0.606531·0.5) / 2 = 1.151633
B = (2 + W1 * 0.5) / 2
ROOT = math.exp(0.5)
LEVELS = ("sequence", "token", "length_normalised")


def hand_tokens(trainer, rewards=REWARDS, **extras):
    return Tokens(
        trainer=trainer, held=trainer.detach(), generator=torch.tensor(GENERATOR), completion_of=COMPLETION_OF,
        group_of=GROUP_OF, rewards=rewards, **extras,
    )  # fmt: skip


def by_hand(rewards=REWARDS, extras=None, **switches):
    """The loss of the two completions above, its gradient by token, the metrics, and which tokens were clipped."""
    trainer = torch.tensor(TRAINER, requires_grad=True)
    tokens = hand_tokens(trainer, rewards, **(extras or {}))
    loss, metrics, clipped = policy_loss(tokens, Switches(**switches), num_groups=1, num_tokens=3)
    (gradient,) = torch.autograd.grad(loss, trainer)
    return loss.item(), gradient.tolist(), metrics, clipped.tolist()


def test_rapid_worked_by_hand():
    loss, gradient, metrics, _ = by_hand()
    # −½ [2 · (1 − b) · (−1 − 2) + w1 · (0.5 − b) · (−1)]
    assert loss == pytest.approx(-0.5 * (2 * (1 - B) * -3 + W1 * (0.5 - B) * -1), rel=1e-5)
    # The gradient by log π(token) is −½ w̄ A of its completion.
    assert gradient == pytest.approx([-(1 - B), -(1 - B), -0.5 * W1 * (0.5 - B)], rel=1e-5)
    assert float(metrics["clipped"]) == pytest.approx(0.5)  # y0 of two
    assert float(metrics["weight"]) == pytest.approx((2 + W1) / 2)
    assert float(metrics["advantage_abs"]) == pytest.approx(((B - 1) + (B - 0.5)) / 2)


def test_without_clip_the_weight_is_the_ratio():
    _, gradient, metrics, _ = by_hand(weight_clip=None)
    baseline = (math.e + W1 * 0.5) / 2
    assert gradient == pytest.approx([-0.5 * math.e * (1 - baseline)] * 2 + [-0.5 * W1 * (0.5 - baseline)], rel=1e-5)
    assert float(metrics["clipped"]) == 0


def test_token_level_weighs_each_token_by_its_own_ratio():
    _, gradient, _, _ = by_hand(weight_level="token", baseline="plain")
    # Ratios e^0.5, e^0.5, e^−0.5, none above 2; b = 0.75, A = 0.25 and −0.25.
    root = math.exp(0.5)
    assert gradient == pytest.approx([-0.5 * root * 0.25] * 2 + [0.5 * W1 * 0.25], rel=1e-5)


def test_length_normalised_weight_is_the_geometric_mean_of_token_ratios():
    _, gradient, _, _ = by_hand(weight_level="length_normalised", baseline="plain")
    assert gradient == pytest.approx([-0.5 * math.exp(0.5) * 0.25] * 2 + [0.5 * W1 * 0.25], rel=1e-5)


@pytest.mark.parametrize(
    ("normaliser", "scales"),
    [
        ("completion", [1 / 2, 1 / 2, 1 / 2]),  # one group, two completions
        ("length", [1 / 4, 1 / 4, 1 / 2]),  # divided by 2, 2, 1 tokens too
        ("tokens", [1 / 3, 1 / 3, 1 / 3]),  # three tokens
        ("constant", [1 / 20, 1 / 20, 1 / 20]),  # two completions, constant 10
    ],
)
def test_normalisers_worked_by_hand(normaliser, scales):
    # On-policy gradient with b = 0.75: the gradient of a token is −scale · A, A = 0.25 and −0.25.
    constant = 10 if normaliser == "constant" else None
    _, gradient, _, _ = by_hand(
        loss="policy_gradient", baseline="plain", normaliser=normaliser, normaliser_tokens=constant
    )
    signed = [0.25, 0.25, -0.25]
    assert gradient == pytest.approx([-scale * a for scale, a in zip(scales, signed, strict=True)])


def test_grpo_worked_by_hand():
    loss, gradient, metrics, _ = by_hand(loss="grpo", baseline="plain", clip_low=0.2, clip_high=0.3)
    # y0, A = 0.25: ratios e^0.5 = 1.649 are clipped to 1.3, and carry no gradient.
    # y1, A = −0.25: ratio 0.607 is clipped to 0.8, min(−0.1516, −0.2) = −0.2, no gradient either.
    assert loss == pytest.approx(-0.5 * (1.3 * 0.25 * 2 - 0.2))
    assert gradient == [0, 0, 0]
    assert float(metrics["clipped"]) == 1


def test_grpo_keeps_the_gradient_of_a_ratio_outside_that_moves_back():
    _, gradient, metrics, _ = by_hand(REWARDS.flip(0), loss="grpo", baseline="plain")
    # A = −0.25 with ratio 1.649, A = 0.25 with ratio 0.607: the minimum is the unclipped term, gradient −½ ρ A.
    assert gradient == pytest.approx([0.5 * ROOT * 0.25] * 2 + [-0.5 * W1 * 0.25], rel=1e-5)
    assert float(metrics["clipped"]) == 0


def test_lower_clip_raises_small_weights():
    _, gradient, metrics, clipped = by_hand(weight_clip_low=0.8, baseline="plain")
    # w0 = e falls to 2, w1 = 0.607 rises to 0.8; A = ±0.25
    assert gradient == pytest.approx([-0.5 * 2 * 0.25] * 2 + [0.5 * 0.8 * 0.25], rel=1e-5)
    assert float(metrics["weight"]) == pytest.approx((2 + 0.8) / 2)
    assert clipped == [1, 1, 1]


def test_the_clip_tightens_with_the_lag():
    lags = torch.tensor([1, 2, 0])
    _, gradient, _, clipped = by_hand(extras={"lags": lags}, clip_lag_factor=0.5, weight_clip_low=0.2, baseline="plain")
    # y0 has its largest lag, 2: 1 + (2 − 1)·0.25 = 1.25. y1 has lag 0, where 0.607 is within [0.2, 2].
    assert gradient == pytest.approx([-0.5 * 1.25 * 0.25] * 2 + [0.5 * W1 * 0.25], rel=1e-5)
    assert clipped == [1, 1, 0]
    _, per_token, _, _ = by_hand(extras={"lags": lags}, clip_lag_factor=0.5, weight_level="token", baseline="plain")
    # Token by token: 1.649 against 1.5 at lag 1 and 1.25 at lag 2.
    assert per_token == pytest.approx([-0.5 * 1.5 * 0.25, -0.5 * 1.25 * 0.25, 0.5 * W1 * 0.25], rel=1e-5)


def test_cispo_worked_by_hand():
    _, gradient, _, clipped = by_hand(loss="cispo", weight_clip=1.3, baseline="plain")
    # Ratios 1.649, 1.649, 0.607: the weight is clipped, the gradient stays.
    assert gradient == pytest.approx([-0.5 * 1.3 * 0.25] * 2 + [0.5 * W1 * 0.25], rel=1e-5)
    assert clipped == [1, 1, 0]


def test_icepop_worked_by_hand():
    _, gradient, metrics, clipped = by_hand(loss="icepop", mask_low=0.5, mask_high=1.3, baseline="plain")
    # Without a proximal policy ρ = 1 and k = π/μ = 1.649, 1.649, 0.607: the first two are masked.
    assert gradient == pytest.approx([0, 0, 0.5 * W1 * 0.25], rel=1e-5)
    assert clipped == [1, 1, 0]
    assert float(metrics["weight"]) == pytest.approx(W1 / 2)


def test_decoupled_ppo_worked_by_hand():
    # log π_prox: k = π_prox/μ = e^0.1, e^2, e^−0.5; ρ = π/π_prox = e^0.4, e^−1.5, 1
    proximal = torch.tensor([-1.4, -0.5, -1.0])
    loss, gradient, _, clipped = by_hand(extras={"proximal": proximal}, loss="decoupled_ppo", baseline="plain")
    # Token 0: A = 0.25, ρ = 1.49 above 1.2, cut. Token 1: k = 7.4 above 5, masked. Token 2: −½ k ρ A = ½·0.607·0.25.
    assert gradient == pytest.approx([0, 0, 0.5 * W1 * 0.25], rel=1e-5)
    assert loss == pytest.approx(-0.5 * (math.exp(0.1) * 1.2 * 0.25 - W1 * 0.25), rel=1e-5)
    assert clipped == [1, 1, 0]


def test_tis_truncates_the_proximal_ratio():
    proximal = torch.tensor([-1.4, -0.5, -1.0])
    _, gradient, _, clipped = by_hand(REWARDS.flip(0), {"proximal": proximal}, loss="tis", baseline="plain")
    # A = −0.25, 0.25. k = 1.105, 7.4 → 2, 0.607; ρ = 1.49 with A < 0 is not cut, ρ = 0.22 below 0.8 is, ρ = 1 is not.
    expected = [0.5 * math.exp(0.1) * math.exp(0.4) * 0.25, 0, -0.5 * W1 * 0.25]
    assert gradient == pytest.approx(expected, rel=1e-5)
    assert clipped == [0, 1, 0]


def test_gspo_worked_by_hand():
    loss, gradient, _, clipped = by_hand(
        REWARDS.flip(0), loss="gspo", baseline="plain", normaliser="length", clip_low=0.2, clip_high=0.2
    )
    # s0 = e^(1/2) = 1.649 with A = −0.25: not cut. s1 = 0.607 with A = 0.25: not cut. Loss −½ (s0 A0 + s1 A1),
    # gradient −½ s A / |y|.
    assert loss == pytest.approx(-0.5 * (-0.25 * ROOT + 0.25 * W1), rel=1e-5)
    assert gradient == pytest.approx([0.5 * ROOT * 0.25 / 2] * 2 + [-0.5 * W1 * 0.25], rel=1e-5)
    _, gradient, _, clipped = by_hand(loss="gspo", baseline="plain", clip_low=0.2, clip_high=0.2)
    assert gradient == [0, 0, 0]
    assert clipped == [1, 1, 1]


def test_m2po_worked_by_hand():
    kept = torch.tensor([True, False, True])
    loss, gradient, _, clipped = by_hand(extras={"kept": kept}, loss="m2po", baseline="plain")
    assert gradient == pytest.approx([-0.5 * ROOT * 0.25, 0, 0.5 * W1 * 0.25], rel=1e-5)
    assert loss == pytest.approx(-0.5 * (ROOT * 0.25 - W1 * 0.25), rel=1e-5)
    assert clipped == [0, 1, 0]


def test_sft_is_the_likelihood_of_completions_with_full_reward():
    loss, gradient, metrics, _ = by_hand(loss="sft")
    assert loss == pytest.approx(-0.5 * -3)
    assert gradient == [-0.5, -0.5, 0]
    assert float(metrics["advantage_abs"]) == 0.5


def test_k1_is_taken_from_the_reward():
    reference = torch.tensor([-1.5, -2.5, -1.0])
    # Σ δ = 1 for y0, 0 for y1: rewards 1 − 0.3 and 0.5, baseline 0.6.
    _, gradient, metrics, _ = by_hand(
        extras={"reference": reference}, loss="policy_gradient", baseline="plain", kl_coefficient=0.3,
        kl_estimator="k1",
    )  # fmt: skip
    assert gradient == pytest.approx([-0.05, -0.05, 0.05], abs=1e-6)
    # k3 of δ = 0.5, 0.5, 0, a mean over completions.
    assert float(metrics["kl_reference"]) == pytest.approx((math.exp(-0.5) - 1 + 0.5) / 2, rel=1e-5)


def test_the_deviation_beside_k1_is_that_of_the_rewards_of_the_task():
    options = {"loss": "policy_gradient", "baseline": "plain", "advantage_scale": "std", "kl_estimator": "k1"}
    reference = {"reference": torch.tensor([-1.5, -2.5, -1.0])}
    # As above 0.7 and 0.5 around 0.6; the rewards 1 and 0.5 deviate by 0.5 / √2.
    _, gradient, _, _ = by_hand(extras=reference, kl_coefficient=0.3, **options)
    assert gradient == pytest.approx([-0.05 * 2**1.5, -0.05 * 2**1.5, 0.05 * 2**1.5], abs=1e-6)
    # Of equal rewards only the penalties differ: divided by their own deviation they would give ±0.707 at any β.
    for beta in (0.001, 0.3):
        _, gradient, _, _ = by_hand(torch.ones(2), extras=reference, kl_coefficient=beta, **options)
        assert gradient == [0, 0, 0]


@pytest.mark.parametrize(
    ("estimator", "slopes"),
    [
        ("k2", [0.5, 0.5, 0]),  # δ
        ("k3", [1 - math.exp(-0.5)] * 2 + [0]),  # 1 − e^−δ
    ],
)
def test_k2_and_k3_are_terms_of_the_loss(estimator, slopes):
    options = {"loss": "policy_gradient", "baseline": "plain"}
    reference = {"reference": torch.tensor([-1.5, -2.5, -1.0])}
    _, plain, _, _ = by_hand(**options)
    _, gradient, _, _ = by_hand(extras=reference, kl_coefficient=0.3, kl_estimator=estimator, **options)
    found = [a - b for a, b in zip(gradient, plain, strict=True)]
    assert found == pytest.approx([0.3 * 0.5 * slope for slope in slopes], abs=1e-6)


def test_the_entropy_bonus_is_a_term_of_each_token():
    trainer = torch.tensor(TRAINER, requires_grad=True)
    entropies = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    tokens = hand_tokens(trainer, entropies=entropies)
    switches = Switches(entropy_coefficient=0.1, normaliser="length")
    loss = policy_loss(tokens, switches, num_groups=1, num_tokens=3).loss
    plain = policy_loss(tokens, Switches(normaliser="length"), num_groups=1, num_tokens=3).loss
    assert float((loss - plain).detach()) == pytest.approx(-0.1 * ((1 + 2) / 2 + 4) / 2, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, entropies)
    assert gradient.tolist() == pytest.approx([-0.025, -0.025, -0.05])


@pytest.mark.parametrize("name", METHODS)
def test_micro_batches_add_up_to_the_batch(name):
    batch, options = with_lags(make_batch(SHAPES)), METHODS[name]
    trainer = near(batch.generator_logprobs_T)
    extras = extras_of(batch, trainer, options)
    loss, gradient, metrics = of_batch(batch, trainer, extras=extras, **options)
    assert gradient.abs().max() > 0
    total, parts, sums = 0.0, [], dict.fromkeys(metrics, 0.0)
    for groups in ([0], [1, 2], [3]):
        part = batch.select_groups(groups)
        tokens = torch.isin(batch.group_of_C[batch.completion_of_T], torch.tensor(groups))
        leaf = trainer[tokens].detach().requires_grad_()
        some_extras = {name: values[tokens] for name, values in extras.items()}
        value, piece, some = of_batch(part, leaf, counts=(4, batch.num_tokens), extras=some_extras, **options)
        total, parts = total + value, [*parts, piece]
        sums = {name: sums[name] + some[name] for name in sums}
    torch.testing.assert_close(total, loss, atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.cat(parts), gradient, atol=1e-6, rtol=0)
    for name, value in sums.items():
        torch.testing.assert_close(value, metrics[name], atol=1e-6, rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(3)), st.sampled_from(sorted(METHODS)), st.integers(0, 100))
def test_order_of_completions_does_not_matter(order, name, seed):
    batch, options = with_lags(make_batch([(3, [2, 4, 1])], seed)), METHODS[name]
    trainer = near(batch.generator_logprobs_T, seed)
    extras = extras_of(batch, trainer, options, seed)
    loss, gradient, _ = of_batch(batch, trainer, extras=extras, **options)
    tokens = torch.cat([torch.nonzero(batch.completion_of_T == completion).flatten() for completion in order])
    rank_of = torch.argsort(torch.tensor(order))
    leaf = trainer[tokens].detach().requires_grad_()
    mixed = tokens_of(batch, trainer, extras=extras)
    mixed = Tokens(
        trainer=leaf, held=leaf.detach(), generator=mixed.generator[tokens], lags=batch.lags_T[tokens],
        completion_of=rank_of[batch.completion_of_T[tokens]], group_of=batch.group_of_C,
        rewards=batch.rewards_C[torch.tensor(order)], entropies=-leaf * leaf.exp(),
        **{name: values[tokens] for name, values in extras.items()},
    )  # fmt: skip
    mixed_loss = policy_loss(mixed, Switches(**options), num_groups=1, num_tokens=batch.num_tokens).loss
    (mixed_gradient,) = torch.autograd.grad(mixed_loss, leaf)
    torch.testing.assert_close(mixed_loss.detach(), loss, atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(mixed_gradient, gradient[tokens], atol=2e-5, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(set(ON_POLICY) - {"sft"})), st.integers(0, 100), st.floats(0.5, 8))
def test_a_group_without_signal_has_no_gradient_on_policy(name, seed, reward):
    batch, options = with_lags(make_batch([(3, [2, 4, 1])], seed)), METHODS[name] | {"advantage_scale": "none"}
    trainer = batch.generator_logprobs_T.clone().requires_grad_()
    extras = extras_of(batch, trainer, options) | {"proximal": batch.generator_logprobs_T}
    batch = replace(batch, rewards_C=torch.full((3,), reward))
    gradient = of_batch(batch, trainer, extras=extras, **options)[1]
    assert gradient.abs().max() < 1e-5


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(LEVELS), st.floats(0.5, 4), st.integers(0, 100))
def test_weights_never_exceed_the_clip(level, clip, seed):
    batch = make_batch(SHAPES, seed)
    log_ratios = 3 * torch.randn(batch.num_tokens, generator=torch.Generator().manual_seed(seed))
    weights, clipped = importance_weights(log_ratios, batch.completion_of_T, batch.num_completions, level, clip)
    assert weights.max() <= clip
    assert weights.min() >= 0
    assert torch.equal(clipped.bool(), weights == torch.tensor(clip))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 100), st.floats(0.1, 2.0), st.floats(1.0, 4.0), st.floats(0.1, 0.99))
def test_weights_keep_to_the_bounds_of_their_lag(seed, factor, high, low):
    batch = with_lags(make_batch(SHAPES, seed), 5)
    log_ratios = 3 * torch.randn(batch.num_tokens, generator=torch.Generator().manual_seed(seed))
    weights, clipped = importance_weights(
        log_ratios, batch.completion_of_T, batch.num_completions, "token", high, low,
        lags=batch.lags_T, lag_factor=factor,
    )  # fmt: skip
    reach = factor**batch.lags_T
    assert bool((weights <= 1 + (high - 1) * reach + 1e-5).all())
    assert bool((weights >= 1 - (1 - low) * reach - 1e-5).all())
    inside = clipped == 0
    torch.testing.assert_close(weights[inside], log_ratios[inside].exp())


@pytest.mark.parametrize("name", METHODS)
def test_a_ratio_beyond_all_bounds_stays_finite(name):
    batch = with_lags(make_batch(SHAPES))
    trainer = torch.zeros(batch.num_tokens, requires_grad=True)
    extras = extras_of(batch, trainer, METHODS[name])
    batch = replace(batch, generator_logprobs_T=torch.full((batch.num_tokens,), -1e4))
    loss, gradient, _ = of_batch(batch, trainer, extras=extras, **METHODS[name])
    assert bool(loss.isfinite())
    assert bool(gradient.isfinite().all())


def test_a_configuration_gives_the_switches():
    config = AlgorithmConfig(loss="grpo", baseline="plain", normaliser="tokens")
    assert Switches(**config.loss_switches) == Switches(loss="grpo", baseline="plain", normaliser="tokens")
    assert {field.name for field in fields(Switches)} == set(config.loss_switches)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "trpo"},
        {"weight_level": "word"},
        {"normaliser": "batch"},
        {"normaliser": "constant"},
        {"baseline": "median"},
        {"loss": "m2po"},
        {"kl_coefficient": 0.1},
        {"kl_coefficient": 0.1, "kl_estimator": "k1"},
        {"entropy_coefficient": 0.1},
        {"clip_lag_factor": 0.5},
    ],
)
def test_unknown_switches_and_missing_tensors_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        by_hand(**options)


def test_an_unknown_kl_estimator_is_refused():
    with pytest.raises(ValueError, match="expected k1, k2 or k3"):
        by_hand(extras={"reference": torch.tensor(TRAINER)}, kl_coefficient=0.1, kl_estimator="k4")


def test_shapes_that_do_not_fit_are_refused():
    good = {
        "trainer": torch.tensor(TRAINER), "held": torch.tensor(TRAINER), "generator": torch.tensor(GENERATOR),
        "completion_of": COMPLETION_OF, "group_of": GROUP_OF, "rewards": REWARDS,
    }  # fmt: skip
    for name in ("held", "generator", "completion_of", "lags", "proximal", "reference", "kept", "entropies"):
        with pytest.raises(ValueError, match="one element a token"):
            Tokens(**(good | {name: torch.zeros(2)}))
    with pytest.raises(ValueError, match="one element a completion"):
        Tokens(**(good | {"group_of": GROUP_OF[:1]}))
    with pytest.raises(ValueError, match="names completion 1"):
        Tokens(**(good | {"group_of": GROUP_OF[:1], "rewards": REWARDS[:1]}))
    with pytest.raises(ValueError, match="whole batch"):
        policy_loss(Tokens(**good), Switches(), num_groups=1, num_tokens=2)


@pytest.mark.parametrize("name", [name for name in METHODS if name.removesuffix("-tokens") in ("rapid", "kl-k3")])
def test_gradients_do_not_depend_on_what_is_held(name):
    # The stopped gradients are constants: `held` enters by value alone.
    batch = with_lags(make_batch(SHAPES))
    trainer = near(batch.generator_logprobs_T)
    extras = extras_of(batch, trainer, METHODS[name])
    loss = loss_of(batch, trainer, extras=extras, held=trainer.detach().requires_grad_(), **METHODS[name]).loss
    torch.testing.assert_close(
        torch.autograd.grad(loss, trainer)[0], of_batch(batch, trainer, extras=extras, **METHODS[name])[1]
    )
