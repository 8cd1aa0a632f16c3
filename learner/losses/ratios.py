"""Ratios of probabilities at the level of tokens and of completions."""

from __future__ import annotations

import torch

from learner.advantages import sum_by

# exp(20) is beyond every use of a ratio, and its square still is a finite float32 in sums over a batch.
MAX_LOG_RATIO = 20.0


def level_log_ratios(
    log_ratios: torch.Tensor, completion_of: torch.Tensor, num_completions: int, level: str
) -> torch.Tensor:
    """Log-ratios at a level: (T,) as they are for "token", (C,) for "sequence" and "length_normalised"."""
    if level == "token":
        return log_ratios
    if level == "sequence":
        return sum_by(log_ratios, completion_of, num_completions)
    if level == "length_normalised":
        return mean_by_completion(log_ratios, completion_of, num_completions)
    raise ValueError(f"weight_level is {level!r}, expected sequence, token or length_normalised")


def spread_log_ratios(
    log_ratios: torch.Tensor, completion_of: torch.Tensor, num_completions: int, level: str
) -> torch.Tensor:
    """The same, each token with the one of its completion: always (T,)."""
    found = level_log_ratios(log_ratios, completion_of, num_completions, level)
    return found if level == "token" else found[completion_of]


def spread_lags(lags: torch.Tensor, completion_of: torch.Tensor, num_completions: int, level: str) -> torch.Tensor:
    """Lag of the ratio that each token has at a level, (T,): a completion counts under its largest."""
    return lags if level == "token" else largest_by_completion(lags, completion_of, num_completions)[completion_of]


def mean_by_completion(values: torch.Tensor, completion_of: torch.Tensor, num_completions: int) -> torch.Tensor:
    """Mean over the tokens of each completion: (T,) -> (C,)."""
    counts = torch.bincount(completion_of, minlength=num_completions).clamp_min(1)
    return sum_by(values, completion_of, num_completions) / counts


def largest_by_completion(values: torch.Tensor, completion_of: torch.Tensor, num_completions: int) -> torch.Tensor:
    """Largest over the tokens of each completion, at least 0: (T,) -> (C,)."""
    largest = torch.zeros(num_completions, dtype=values.dtype, device=values.device)
    return largest.scatter_reduce(0, completion_of, values, reduce="amax")


def exp_ratio(log_ratios: torch.Tensor) -> torch.Tensor:
    """exp, of at most MAX_LOG_RATIO."""
    return log_ratios.clamp(max=MAX_LOG_RATIO).exp()
