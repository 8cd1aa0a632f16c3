"""The proximal policy, between the one that generated and the one that trains."""

from __future__ import annotations

import torch


def interpolate_proximal(
    trainer_logprobs: torch.Tensor, generator_logprobs: torch.Tensor, lags: torch.Tensor, steps: int
) -> torch.Tensor:
    """log π_prox of every token, (T,), detached, for the policy of `steps` optimizer steps ago, without a forward pass.

    A-3PO (Li et al. 2025, arXiv 2512.06547): of a token of lag d the logarithm lies as far between μ and π as the
    version does,

        log π_prox = log μ + (1 − s/d) (log π − log μ),    s = min(steps, d),

    and it is log π where d = 0. The paper has s = 1, where log μ has the weight 1/d. All arguments (T,).
    """
    log_ratios = (trainer_logprobs - generator_logprobs).detach()
    share = (steps / lags.clamp_min(1)).clamp(max=1.0).to(log_ratios.dtype)
    share = torch.where(lags > 0, share, torch.zeros_like(share))
    return trainer_logprobs.detach() - share * log_ratios
