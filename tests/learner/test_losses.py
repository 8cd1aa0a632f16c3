from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.config import AlgorithmConfig
from learner.losses import importance_weights, policy_loss
from tests.learner.batch_kit import make_batch, near

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
SHAPES = [(3, [2, 4, 1]), (5, [3, 3, 2]), (1, [1, 5, 2]), (4, [2, 2, 2])]

LEVELS = ("sequence", "token", "length_normalised")
NORMALISERS = ("completion", "length", "tokens", "constant")
VARIANTS = [
    {"loss": "rapid", "weight_level": level, "normaliser": normaliser, "normaliser_tokens": 7, "baseline": baseline}
    for level, normaliser, baseline in itertools.product(LEVELS, NORMALISERS, ("weighted", "leave_one_out"))
] + [
    {"loss": loss, "normaliser": normaliser, "normaliser_tokens": 7, "advantage_scale": scale, "baseline": "plain"}
    for loss, normaliser, scale in itertools.product(("policy_gradient", "grpo"), NORMALISERS, ("none", "std"))
]


def by_hand(**options):
    """The loss of the two completions above, its gradient by token, and the metrics."""
    trainer = torch.tensor(TRAINER, requires_grad=True)
    loss, metrics = policy_loss(
        trainer, torch.tensor(GENERATOR), COMPLETION_OF, GROUP_OF, REWARDS, num_groups=1, num_tokens=3, **options
    )
    (gradient,) = torch.autograd.grad(loss, trainer)
    return loss.item(), gradient.tolist(), metrics


def of_batch(batch, trainer, num_groups=None, num_tokens=None, **options):
    """The loss of a batch and its gradient."""
    loss, metrics = policy_loss(
        trainer,
        batch.generator_logprobs_T,
        batch.completion_of_T,
        batch.group_of_C,
        batch.rewards_C,
        num_groups=num_groups or batch.num_groups,
        num_tokens=num_tokens or batch.num_tokens,
        **options,
    )
    (gradient,) = torch.autograd.grad(loss, trainer)
    return loss.detach(), gradient, metrics


def test_rapid_worked_by_hand():
    loss, gradient, metrics = by_hand()
    # −½ [2 · (1 − b) · (−1 − 2) + w1 · (0.5 − b) · (−1)]
    assert loss == pytest.approx(-0.5 * (2 * (1 - B) * -3 + W1 * (0.5 - B) * -1), rel=1e-5)
    # The gradient by log π(token) is −½ w̄ A of its completion.
    assert gradient == pytest.approx([-(1 - B), -(1 - B), -0.5 * W1 * (0.5 - B)], rel=1e-5)
    assert float(metrics["clipped"]) == pytest.approx(0.5)  # y0 of two
    assert float(metrics["weight"]) == pytest.approx((2 + W1) / 2)
    assert float(metrics["advantage_abs"]) == pytest.approx(((B - 1) + (B - 0.5)) / 2)


def test_without_clip_the_weight_is_the_ratio():
    _, gradient, metrics = by_hand(weight_clip=None)
    baseline = (math.e + W1 * 0.5) / 2
    assert gradient == pytest.approx([-0.5 * math.e * (1 - baseline)] * 2 + [-0.5 * W1 * (0.5 - baseline)], rel=1e-5)
    assert float(metrics["clipped"]) == 0


def test_token_level_weighs_each_token_by_its_own_ratio():
    _, gradient, _ = by_hand(weight_level="token", baseline="plain")
    # Ratios e^0.5, e^0.5, e^−0.5, none above 2; b = 0.75, A = 0.25 and −0.25.
    root = math.exp(0.5)
    assert gradient == pytest.approx([-0.5 * root * 0.25] * 2 + [0.5 * W1 * 0.25], rel=1e-5)


def test_length_normalised_weight_is_the_geometric_mean_of_token_ratios():
    _, gradient, _ = by_hand(weight_level="length_normalised", baseline="plain")
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
    _, gradient, _ = by_hand(
        loss="policy_gradient", baseline="plain", normaliser=normaliser, normaliser_tokens=constant
    )
    signed = [0.25, 0.25, -0.25]
    assert gradient == pytest.approx([-scale * a for scale, a in zip(scales, signed, strict=True)])


def test_grpo_worked_by_hand():
    loss, gradient, metrics = by_hand(loss="grpo", baseline="plain", clip_low=0.2, clip_high=0.3)
    # y0, A = 0.25: ratios e^0.5 = 1.649 are clipped to 1.3, and carry no gradient.
    # y1, A = −0.25: ratio 0.607 is clipped to 0.8, min(−0.1516, −0.2) = −0.2, no gradient either.
    assert loss == pytest.approx(-0.5 * (1.3 * 0.25 * 2 - 0.2))
    assert gradient == [0, 0, 0]
    assert float(metrics["clipped"]) == 1


def test_grpo_keeps_the_gradient_of_a_ratio_outside_that_moves_back():
    trainer = torch.tensor(TRAINER, requires_grad=True)
    loss, metrics = policy_loss(
        trainer, torch.tensor(GENERATOR), COMPLETION_OF, GROUP_OF, REWARDS.flip(0), num_groups=1, num_tokens=3,
        loss="grpo", baseline="plain",
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(loss, trainer)
    # A = −0.25 with ratio 1.649, A = 0.25 with ratio 0.607: the minimum is the unclipped term, gradient −½ ρ A.
    root = math.exp(0.5)
    assert gradient.tolist() == pytest.approx([0.5 * root * 0.25] * 2 + [-0.5 * W1 * 0.25], rel=1e-5)
    assert float(metrics["clipped"]) == 0


@pytest.mark.parametrize("level", LEVELS)
def test_rapid_on_policy_is_policy_gradient(level):
    batch = make_batch(SHAPES)
    trainer = batch.generator_logprobs_T.clone().requires_grad_()
    rapid = of_batch(batch, trainer, weight_level=level)
    plain = of_batch(batch, trainer, loss="policy_gradient", baseline="plain")
    torch.testing.assert_close(rapid[:2], plain[:2])


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


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "-".join(map(str, options.values())))
def test_micro_batches_add_up_to_the_batch(options):
    batch = make_batch(SHAPES)
    trainer = near(batch.generator_logprobs_T)
    loss, gradient, metrics = of_batch(batch, trainer, **options)
    total, parts, sums = 0.0, [], dict.fromkeys(metrics, 0.0)
    for groups in ([0], [1, 2], [3]):
        part = batch.select_groups(groups)
        tokens = torch.isin(batch.group_of_C[batch.completion_of_T], torch.tensor(groups))
        leaf = trainer[tokens].detach().requires_grad_()
        value, piece, some = of_batch(part, leaf, num_groups=4, num_tokens=batch.num_tokens, **options)
        total, parts = total + value, [*parts, piece]
        sums = {name: sums[name] + some[name] for name in sums}
    torch.testing.assert_close(total, loss)
    torch.testing.assert_close(torch.cat(parts), gradient)
    for name, value in sums.items():
        torch.testing.assert_close(value, metrics[name])


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(3)), st.sampled_from(VARIANTS), st.integers(0, 100))
def test_order_of_completions_does_not_matter(order, options, seed):
    batch = make_batch([(3, [2, 4, 1])], seed)
    trainer = near(batch.generator_logprobs_T, seed)
    loss, gradient, _ = of_batch(batch, trainer, **options)
    tokens = torch.cat([torch.nonzero(batch.completion_of_T == completion).flatten() for completion in order])
    rank_of = torch.argsort(torch.tensor(order))
    leaf = trainer[tokens].detach().requires_grad_()
    mixed, _ = policy_loss(
        leaf, batch.generator_logprobs_T[tokens], rank_of[batch.completion_of_T[tokens]], batch.group_of_C,
        batch.rewards_C[torch.tensor(order)], num_groups=1, num_tokens=batch.num_tokens, **options,
    )  # fmt: skip
    (mixed_gradient,) = torch.autograd.grad(mixed, leaf)
    torch.testing.assert_close(mixed.detach(), loss)
    torch.testing.assert_close(mixed_gradient, gradient[tokens])


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(VARIANTS), st.integers(0, 100), st.floats(0.5, 8))
def test_a_group_without_signal_has_no_gradient_on_policy(options, seed, reward):
    batch = make_batch([(3, [2, 4, 1])], seed)
    trainer = batch.generator_logprobs_T.clone().requires_grad_()
    loss, _ = policy_loss(
        trainer, batch.generator_logprobs_T, batch.completion_of_T, batch.group_of_C, torch.full((3,), reward),
        num_groups=1, num_tokens=batch.num_tokens, **{**options, "advantage_scale": "none"},
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(loss, trainer)
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


@pytest.mark.parametrize("clip", [2.0, None])
def test_a_ratio_beyond_all_bounds_stays_finite(clip):
    trainer = torch.zeros(3, requires_grad=True)
    loss, _ = policy_loss(
        trainer, torch.full((3,), -1e4), COMPLETION_OF, GROUP_OF, REWARDS, num_groups=1, num_tokens=3,
        weight_clip=clip, weight_level="sequence",
    )  # fmt: skip
    (gradient,) = torch.autograd.grad(loss, trainer)
    assert bool(gradient.isfinite().all())


def test_a_configuration_gives_the_keywords():
    options = AlgorithmConfig(loss="grpo", baseline="plain", normaliser="tokens").model_dump()
    assert by_hand(**options)[0] == pytest.approx(by_hand(loss="grpo", baseline="plain", normaliser="tokens")[0])


@pytest.mark.parametrize(
    "options",
    [{"loss": "ppo"}, {"weight_level": "word"}, {"normaliser": "batch"}, {"normaliser": "constant"}],
)
def test_unknown_switches_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        by_hand(**options)


def test_shapes_that_do_not_fit_are_refused():
    trainer, generator = torch.tensor(TRAINER), torch.tensor(GENERATOR)
    options = {"num_groups": 1, "num_tokens": 3}
    with pytest.raises(ValueError, match="one element a token"):
        policy_loss(trainer, generator[:2], COMPLETION_OF, GROUP_OF, REWARDS, **options)
    with pytest.raises(ValueError, match="one element a completion"):
        policy_loss(trainer, generator, COMPLETION_OF, GROUP_OF[:1], REWARDS, **options)
    with pytest.raises(ValueError, match="names completion 1"):
        policy_loss(trainer, generator, COMPLETION_OF, GROUP_OF[:1], REWARDS[:1], **options)
    with pytest.raises(ValueError, match="whole batch"):
        policy_loss(trainer, generator, COMPLETION_OF, GROUP_OF, REWARDS, num_groups=1, num_tokens=2)
