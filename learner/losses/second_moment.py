"""M2PO's mask: which tokens of a batch train, so that the second moment of their log-ratios stays small."""

from __future__ import annotations

import torch


def second_moment_mask(log_ratios: torch.Tensor, advantages: torch.Tensor, threshold: float) -> torch.Tensor:
    """True for the tokens that are kept: bool (T,). `log_ratios` and `advantages` are (T,), of the whole batch.

    M2PO (Zheng et al. 2025, arXiv 2510.01161, algorithm 1): of the tokens that a trust region is about, those that the
    update moves further away (A > 0 with π > μ, A < 0 with π < μ), the largest (log π/μ)² are masked until the mean of
    the others is at most `threshold`. Of two equal ones none or both are masked, so that the order cannot matter.
    AReaL's implementation counts and masks tokens of either sign.
    """
    if log_ratios.shape != advantages.shape or log_ratios.ndim != 1:
        raise ValueError(
            f"log_ratios {tuple(log_ratios.shape)} and advantages {tuple(advantages.shape)}: expected one dimension "
            "and equal lengths, the number of tokens"
        )
    # float64, so that the order of the sum cannot move the bound.
    squares = log_ratios.detach().double().square()
    concerned = advantages * log_ratios > 0
    ordered = squares[concerned].sort().values
    if not len(ordered):
        return torch.ones_like(concerned)
    means = ordered.cumsum(0) / torch.arange(1, len(ordered) + 1, device=ordered.device)
    # Means of an ascending row ascend, so that the kept ones are its beginning.
    num_kept = int((means <= threshold).sum())
    if num_kept == len(ordered):
        return torch.ones_like(concerned)
    first_masked = ordered[num_kept]
    return ~concerned | (squares < first_masked)
