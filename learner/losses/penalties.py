"""KL divergence from a reference model: as a penalty of the reward (k1), or as terms of the loss (k2, k3).

Estimators of KL(π‖π_ref) from tokens drawn by π, with δ = log π − log π_ref (Schulman 2020, "Approximating KL
divergence"):

    k1 = δ        unbiased, and may be negative
    k2 = δ²/2     its gradient δ∇log π is that of the KL of a token; low variance
    k3 = e^−δ − 1 + δ        unbiased, never negative; that of GRPO (arXiv 2402.03300)

The gradient of k1 itself is ∇log π, zero in expectation, so that it would train on nothing but noise: it is taken from
the reward, where the policy gradient differentiates it. All of them are estimates on the generator's tokens, as in
the papers; no importance weight corrects k2 and k3.
"""

from __future__ import annotations

import torch

from learner.advantages import sum_by
from learner.losses.ratios import MAX_LOG_RATIO


def penalised_rewards(
    rewards: torch.Tensor,
    log_ratios: torch.Tensor,
    completion_of: torch.Tensor,
    coefficient: float,
) -> torch.Tensor:
    """r − β Σ_t δ_t of every completion, (C,), detached; `log_ratios` δ (T,) (arXiv 2203.02155)."""
    return rewards - coefficient * sum_by(log_ratios.detach().to(rewards.dtype), completion_of, len(rewards))


def kl_terms(log_ratios: torch.Tensor, estimator: str) -> torch.Tensor:
    """k1, k2 or k3 of every token, (T,), with the gradient of δ = `log_ratios`."""
    if estimator == "k1":
        return log_ratios
    if estimator == "k2":
        return log_ratios.square() / 2
    if estimator == "k3":
        return (-log_ratios).clamp(max=MAX_LOG_RATIO).exp() - 1 + log_ratios
    raise ValueError(f"kl_estimator is {estimator!r}, expected k1, k2 or k3")
