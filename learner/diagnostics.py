"""How far off-policy a batch is: computed once from the tokens of the whole batch.

Means of means would depend on how a batch was cut. So nothing is averaged before all log-probabilities of the
batch are there: micro-batches write theirs into one (T,) tensor of zeros (`MicroBatch.token_index` says where), and
ranks add their tensors up.
"""

from __future__ import annotations

import torch

from learner.losses.ratios import exp_ratio, largest_by_completion, level_log_ratios, mean_by_completion

QUANTILES = {"ratio_p05": 0.05, "ratio_p50": 0.5, "ratio_p95": 0.95}


def batch_diagnostics(
    trainer_logprobs: torch.Tensor,
    generator_logprobs: torch.Tensor,
    lags: torch.Tensor,
    completion_of: torch.Tensor,
    clipped: torch.Tensor,
    *,
    level: str,
) -> dict[str, object]:
    """Diagnostics of a batch, plain numbers under the keys of `metrics.jsonl`, and `by_lag` for each lag.

    Arguments, all (T,): log π before the update, log μ, lags (int64), completion of each token, and 1 where the loss
    clipped, cut or masked the token (`PolicyLoss.clipped`). `level` is that at which the loss uses ratios ("sequence",
    "token", "length_normalised"). Ratios are taken before clipping.

        ratio_mean, ess_fraction    over the ratios π/μ of the level
        clipped_fraction    over the same: tokens, or completions
        kl_behaviour    KL(μ‖π) in nats per token, the k3 estimator: mean of π/μ − 1 − log(π/μ), never negative
        logprob_diff_mean    mean |log μ − log π| over the tokens of completions wholly of lag 0; None where there are
            none. A completion that weights changed under is left out: its later tokens were drawn over the KV cache
            of earlier weights, so that even equal programs differ on them.
        by_lag    {lag: the same but logprob_diff_mean for its tokens, with ratio quantiles and counts}; a completion
                  whose tokens have several lags counts, at the levels of completions, under its largest

    Raises ValueError for shapes that differ and for an empty batch.
    """
    _check_shapes(trainer_logprobs, generator_logprobs, lags, completion_of, clipped)
    # float64, so that the order of a sum over a large batch cannot be seen in the result.
    log_ratios = trainer_logprobs.detach().double() - generator_logprobs.double()
    num_completions = int(completion_of.max()) + 1
    unit_log_ratios = level_log_ratios(log_ratios, completion_of, num_completions, level)
    unit_clipped = clipped.double()
    if level != "token":
        unit_clipped = mean_by_completion(unit_clipped, completion_of, num_completions)
    completion_lags = largest_by_completion(lags, completion_of, num_completions)
    unit_lags = lags if level == "token" else completion_lags
    current = completion_lags[completion_of] == 0
    by_lag = {
        lag: {
            **_describe(unit_log_ratios[unit_lags == lag], unit_clipped[unit_lags == lag], log_ratios[lags == lag]),
            **_quantiles(unit_log_ratios[unit_lags == lag]),
            "tokens": int((lags == lag).sum()),
            "ratios": int((unit_lags == lag).sum()),
        }
        for lag in sorted(set(lags.tolist()))
    }
    return {
        **_describe(unit_log_ratios, unit_clipped, log_ratios),
        "logprob_diff_mean": float(log_ratios[current].abs().mean()) if bool(current.any()) else None,
        "lag_mean": float(lags.double().mean()),
        "lag_max": int(lags.max()),
        "by_lag": by_lag,
    }


def effective_sample_fraction(weights: torch.Tensor) -> float:
    """Kish's effective sample size as a share of the number of weights, (Σw)² / (n Σw²), in (0, 1]."""
    return float(weights.sum().square() / (len(weights) * weights.square().sum()))


def _describe(
    unit_log_ratios: torch.Tensor, unit_clipped: torch.Tensor, token_log_ratios: torch.Tensor
) -> dict[str, float | None]:
    ratios = exp_ratio(unit_log_ratios)
    if not len(ratios):
        shares: dict[str, float | None] = dict.fromkeys(("ratio_mean", "clipped_fraction", "ess_fraction"))
    else:
        shares = {
            "ratio_mean": float(ratios.mean()),
            "clipped_fraction": float(unit_clipped.mean()),
            # Of one scale all weights have the same share; relative to the largest they cannot all underflow.
            "ess_fraction": effective_sample_fraction((unit_log_ratios - unit_log_ratios.max()).exp()),
        }
    # Rounding takes what is nearly 0 below it.
    kl = (exp_ratio(token_log_ratios) - 1 - token_log_ratios).clamp(min=0)
    return {**shares, "kl_behaviour": float(kl.mean())}


def _quantiles(log_ratios: torch.Tensor) -> dict[str, float | None]:
    if not len(log_ratios):
        return dict.fromkeys(QUANTILES)
    levels = torch.tensor(list(QUANTILES.values()), dtype=log_ratios.dtype)
    # Sorted by hand, since torch.quantile refuses more than 16 million values.
    ordered = exp_ratio(log_ratios.sort().values)
    places = (levels * (len(ordered) - 1)).round().long()
    return dict(zip(QUANTILES, ordered[places].tolist(), strict=True))


def _check_shapes(*tensors: torch.Tensor) -> None:
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(set(shapes)) != 1 or len(shapes[0]) != 1 or shapes[0][0] == 0:
        raise ValueError(
            f"trainer_logprobs, generator_logprobs, lags, completion_of and clipped have shapes {shapes}: expected "
            "one dimension and equal lengths, the number of tokens, at least 1"
        )
