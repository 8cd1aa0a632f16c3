"""What the gradient goes through: log π itself, or a ratio, clipped or not.

Each function gives three tensors (T,): the terms with gradient, the detached ratio that multiplies A ∇log π, and 1
where a clip cuts the gradient off.
"""

from __future__ import annotations

import torch

from learner.losses.ratios import exp_ratio

Terms = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def score_terms(logprobs: torch.Tensor, advantages: torch.Tensor) -> Terms:
    """A log π of every token: REINFORCE (Williams 1992)."""
    zeros = torch.zeros_like(logprobs).detach()
    return advantages * logprobs, zeros + 1, zeros


def ratio_terms(log_ratios: torch.Tensor, advantages: torch.Tensor) -> Terms:
    """ρA of every token, without a clip: its gradient is ρA ∇log π."""
    ratios = exp_ratio(log_ratios)
    return ratios * advantages, ratios.detach(), torch.zeros_like(ratios).detach()


def clipped_surrogate(log_ratios: torch.Tensor, advantages: torch.Tensor, clip_low: float, clip_high: float) -> Terms:
    """min(ρA, clip(ρ, 1−ε, 1+ε')A) of every token.

    PPO, arXiv 1707.06347; per token of a completion in GRPO, arXiv 2402.03300; ε' > ε is DAPO's, arXiv 2503.14476.
    """
    ratios = exp_ratio(log_ratios)
    clipped_ratios = ratios.clamp(1 - clip_low, 1 + clip_high)
    terms = torch.minimum(ratios * advantages, clipped_ratios * advantages)
    cut = ((ratios > 1 + clip_high) & (advantages > 0)) | ((ratios < 1 - clip_low) & (advantages < 0))
    return terms, ratios.detach(), cut.to(ratios.dtype)
