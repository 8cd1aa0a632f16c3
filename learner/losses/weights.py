"""Weights that correct for the generator: truncated, or masked outside a band. Constants to the gradient.

truncated    min(max(w, low), high)      RAPID, CISPO, TIS
masked       w · 1[low ≤ w ≤ high]       IcePop, decoupled PPO
"""

from __future__ import annotations

import torch

from learner.losses.ratios import exp_ratio, spread_lags, spread_log_ratios


def importance_weights(
    log_ratios: torch.Tensor,
    completion_of: torch.Tensor,
    num_completions: int,
    level: str,
    clip: float | None,
    clip_low: float | None = None,
    *,
    lags: torch.Tensor | None = None,
    lag_factor: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Truncated importance weight of every token, and 1 where it was truncated: both (T,), detached.

    At level "sequence" and "length_normalised" (the ratio of GSPO, arXiv 2507.18071) all tokens of a completion
    have one weight. `clip` and `clip_low` bound it from above and below; None is no bound. With a `lag_factor` f
    other than 1, a ratio of lag l has the bounds 1 + (clip − 1)·f^l and 1 − (1 − clip_low)·f^l: f < 1 draws them
    towards 1 for old tokens, and `lags` (T,) must be there.
    """
    weights = exp_ratio(spread_log_ratios(log_ratios.detach(), completion_of, num_completions, level))
    if lag_factor == 1.0:
        bounded = weights if clip is None and clip_low is None else weights.clamp(clip_low, clip)
    else:
        if lags is None:
            raise ValueError(f"clip_lag_factor is {lag_factor}, but lags is None: expected the lag of every token")
        reach = lag_factor ** spread_lags(lags, completion_of, num_completions, level).to(weights.dtype)
        bounded = weights
        if clip is not None:
            bounded = torch.minimum(bounded, 1 + (clip - 1) * reach)
        if clip_low is not None:
            bounded = torch.maximum(bounded, 1 - (1 - clip_low) * reach)
    return bounded, (bounded != weights).to(weights.dtype)


def masked_weights(
    log_ratios: torch.Tensor, mask_low: float | None, mask_high: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ratio of every token, 0 where it leaves [mask_low, mask_high], and 1 where it did: both (T,), detached.

    None is no bound. IcePop (arXiv 2510.18855) has both, AReaL (arXiv 2505.24298) the upper one.
    """
    weights = exp_ratio(log_ratios.detach())
    outside = torch.zeros_like(weights, dtype=torch.bool)
    if mask_low is not None:
        outside |= weights < mask_low
    if mask_high is not None:
        outside |= weights > mask_high
    return weights.masked_fill(outside, 0.0), outside.to(weights.dtype)
