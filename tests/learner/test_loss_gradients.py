"""Gradients against finite differences in float64, and M2PO's mask and the proximal policy by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.losses import interpolate_proximal
from learner.losses.second_moment import second_moment_mask
from tests.learner.batch_kit import make_batch, near, with_lags
from tests.learner.loss_kit import METHODS, SHAPES, extras_of, loss_of


@pytest.mark.parametrize("name", METHODS)
def test_gradient_is_that_of_finite_differences(name):
    batch, options = with_lags(make_batch(SHAPES)), METHODS[name]
    trainer = near(batch.generator_logprobs_T.double()).detach().requires_grad_()
    # Where a formula stops the gradient, it sees a copy that the differences do not move.
    held, extras = trainer.detach().clone(), extras_of(batch, trainer, options)

    def loss(logprobs: torch.Tensor) -> torch.Tensor:
        return loss_of(batch, logprobs, extras=extras, held=held, **options).loss

    assert loss(trainer).dtype == torch.float64
    assert torch.autograd.gradcheck(loss, (trainer,), eps=1e-6, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_some_tokens_are_clipped_and_some_are_not(name):
    # Otherwise the finite differences above would show one branch alone.
    batch, options = with_lags(make_batch(SHAPES)), METHODS[name]
    trainer = near(batch.generator_logprobs_T.double())
    clipped = loss_of(batch, trainer, extras=extras_of(batch, trainer, options), **options).clipped
    if options["loss"] in ("policy_gradient", "sft"):
        assert clipped.sum() == 0
    else:
        assert 0 < clipped.sum() < batch.num_tokens


def test_second_moment_mask_worked_by_hand():
    log_ratios = torch.tensor([0.1, 0.4, -0.5, 0.3, 2.0])
    advantages = torch.tensor([1.0, 1.0, -1.0, 1.0, -1.0])
    # Concerned: 0.01, 0.16, 0.25, 0.09; the last moves back (A < 0, π > μ). Means in ascending order:
    # 0.01, 0.05, 0.0867, 0.1275.
    for threshold, kept in ((0.04, [1, 0, 0, 0, 1]), (0.05, [1, 0, 0, 1, 1]), (0.09, [1, 1, 0, 1, 1]), (0.2, [1] * 5)):
        assert second_moment_mask(log_ratios, advantages, threshold + 1e-6).int().tolist() == kept
    assert second_moment_mask(log_ratios, advantages, 0.001).int().tolist() == [0, 0, 0, 0, 1]


def test_on_policy_the_second_moment_masks_nothing():
    assert second_moment_mask(torch.zeros(4), torch.tensor([1.0, -1.0, 0.0, 2.0]), 0.04).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.floats(0.001, 2.0), st.permutations(range(8)))
def test_the_second_moment_of_the_kept_is_within_the_threshold(seed, threshold, order):
    generator = torch.Generator().manual_seed(seed)
    log_ratios, advantages = torch.randn(8, generator=generator), torch.randn(8, generator=generator)
    kept = second_moment_mask(log_ratios, advantages, threshold)
    concerned = log_ratios * advantages > 0
    assert bool(kept[~concerned].all())
    if bool((kept & concerned).any()):
        assert log_ratios[kept & concerned].double().square().mean() <= threshold
    # What is masked is larger than what is kept, and the order does not matter.
    if bool((kept & concerned).any()) and bool((~kept).any()):
        assert log_ratios[~kept].abs().min() >= log_ratios[kept & concerned].abs().max()
    index = torch.tensor(order)
    assert torch.equal(second_moment_mask(log_ratios[index], advantages[index], threshold), kept[index])


def test_second_moment_mask_refuses_shapes_that_differ():
    with pytest.raises(ValueError, match="equal lengths"):
        second_moment_mask(torch.zeros(3), torch.zeros(2), 0.04)


def test_interpolated_proximal_worked_by_hand():
    trainer, generator = torch.tensor([-1.0, -1.0, -1.0, -1.0]), torch.tensor([-2.0, -2.0, -3.0, -2.0])
    lags = torch.tensor([0, 1, 4, 2])
    # One step back: π at lag 0, μ at lag 1, a quarter of the way to μ at lag 4, half of it at lag 2.
    found = interpolate_proximal(trainer, generator, lags, 1)
    assert found.tolist() == pytest.approx([-1.0, -2.0, -1.5, -1.5])
    # No step back is π itself; more steps than the lag is μ.
    assert torch.equal(interpolate_proximal(trainer, generator, lags, 0), trainer)
    assert interpolate_proximal(trainer, generator, lags, 8).tolist() == pytest.approx([-1.0, -2.0, -3.0, -2.0])


def test_the_proximal_policy_carries_no_gradient():
    trainer = torch.zeros(2, requires_grad=True)
    assert not interpolate_proximal(trainer, torch.ones(2), torch.tensor([1, 2]), 1).requires_grad
