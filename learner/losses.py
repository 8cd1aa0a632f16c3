"""Policy losses as pure functions of tensors.

    T  generated tokens        C  completions        N  groups of the whole batch, over all micro-batches and ranks

The loss of a batch is a sum over its tokens, so it splits: with the normalisers of the whole batch (`num_groups`,
`num_tokens`) the losses of its micro-batches add up to its own, and so do their gradients, as long as no group
is cut. Ranks therefore add their gradients; an engine that averages them over W ranks multiplies the loss by W.

RAPID (Huang et al. 2025, arXiv 2510.03515), for a group of G completions y_i with rewards r_i, generator μ and
trainer π, w̄ the truncated importance weight and b a baseline, both detached:

    loss = −(1/N) Σ_groups (1/G) Σ_i w̄_i (r_i − b) log π(y_i|x)

On-policy policy gradient is the same with w̄ = 1. GRPO (Shao et al. 2024, arXiv 2402.03300) replaces w̄ log π by the
clipped ratio of PPO, per token. docs/algorithm.md says what of this is the paper's and what our reading.
"""

from __future__ import annotations

import torch

from learner.advantages import group_advantages, sum_by

# exp(20) is beyond every use of a ratio, and its square still is a finite float32 in sums over a batch.
MAX_LOG_RATIO = 20.0

Metrics = dict[str, torch.Tensor]


def policy_loss(
    trainer_logprobs: torch.Tensor,
    generator_logprobs: torch.Tensor,
    completion_of: torch.Tensor,
    group_of: torch.Tensor,
    rewards: torch.Tensor,
    *,
    num_groups: int,
    num_tokens: int,
    loss: str = "rapid",
    weight_level: str = "sequence",
    weight_clip: float | None = 2.0,
    baseline: str = "weighted",
    advantage_scale: str = "none",
    normaliser: str = "completion",
    normaliser_tokens: int | None = None,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> tuple[torch.Tensor, Metrics]:
    """Loss of whole groups, and metrics that add up over micro-batches and ranks just as it does.

    trainer_logprobs (T,) log π of each token, with gradient; generator_logprobs (T,) log μ; completion_of int64
    (T,); group_of int64 (C,); rewards (C,). `num_groups` and `num_tokens` count the whole batch. The keywords from
    `loss` on are the fields of AlgorithmConfig. Metrics, each a mean over groups of the mean over their
    completions: `loss`, `advantage_abs`, `weight` (after truncation), `clipped`.
    Raises ValueError for shapes that do not fit and for unknown switches.
    """
    _check_shapes(trainer_logprobs, generator_logprobs, completion_of, group_of, rewards)
    _check_counts(num_groups, num_tokens, trainer_logprobs)
    log_ratios = trainer_logprobs - generator_logprobs
    if loss == "rapid":
        weights, clipped = importance_weights(log_ratios, completion_of, len(rewards), weight_level, weight_clip)
    elif loss in ("policy_gradient", "grpo"):
        weights, clipped = torch.ones_like(log_ratios).detach(), torch.zeros_like(log_ratios).detach()
    else:
        raise ValueError(f"loss is {loss!r}, expected rapid, policy_gradient or grpo")

    weights_C = mean_by_completion(weights, completion_of, len(rewards))
    advantages_C, _ = group_advantages(rewards, weights_C, group_of, baseline=baseline, advantage_scale=advantage_scale)
    advantages = advantages_C[completion_of]
    if loss == "grpo":
        terms, weights, clipped = clipped_surrogate(log_ratios, advantages, clip_low, clip_high)
    else:
        terms = weights * advantages * trainer_logprobs
    scales = token_scales(
        completion_of, group_of, normaliser, num_groups=num_groups, num_tokens=num_tokens, constant=normaliser_tokens
    )
    total = -(scales * terms).sum()

    shares = token_scales(completion_of, group_of, "length", num_groups=num_groups, num_tokens=num_tokens)
    metrics = {
        "loss": total.detach(),
        "advantage_abs": (shares * advantages.abs()).sum(),
        "weight": (shares * weights).sum(),
        "clipped": (shares * clipped).sum(),
    }
    return total, metrics


def importance_weights(
    log_ratios: torch.Tensor, completion_of: torch.Tensor, num_completions: int, level: str, clip: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Truncated importance weight of every token, and 1 where it was truncated: both (T,), detached.

    At level "sequence" and "length_normalised" (the ratio of GSPO, arXiv 2507.18071) all tokens of a completion
    have one weight. `clip` None truncates nothing.
    """
    log_weights = level_log_ratios(log_ratios.detach(), completion_of, num_completions, level)
    if level != "token":
        log_weights = log_weights[completion_of]
    weights = log_weights.clamp(max=MAX_LOG_RATIO).exp()
    if clip is None:
        return weights, torch.zeros_like(weights)
    return weights.clamp(max=clip), (weights > clip).to(weights.dtype)


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


def clipped_surrogate(
    log_ratios: torch.Tensor, advantages: torch.Tensor, clip_low: float, clip_high: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """min(ρA, clip(ρ, 1−ε, 1+ε')A) of every token, the ratio ρ, and 1 where the clip cuts the gradient off.

    All (T,); the first carries the gradient (PPO, arXiv 1707.06347; ε' > ε is DAPO's, arXiv 2503.14476).
    """
    ratios = log_ratios.clamp(max=MAX_LOG_RATIO).exp()
    clipped_ratios = ratios.clamp(1 - clip_low, 1 + clip_high)
    terms = torch.minimum(ratios * advantages, clipped_ratios * advantages)
    cut = ((ratios > 1 + clip_high) & (advantages > 0)) | ((ratios < 1 - clip_low) & (advantages < 0))
    return terms, ratios.detach(), cut.to(ratios.dtype)


def token_scales(
    completion_of: torch.Tensor,
    group_of: torch.Tensor,
    normaliser: str,
    *,
    num_groups: int,
    num_tokens: int,
    constant: int | None = None,
) -> torch.Tensor:
    """What each token's term is multiplied by before the sum: float32 (T,).

    With N groups, G completions in the token's group and |y| tokens in its completion: "completion" 1/(N·G),
    "length" 1/(N·G·|y|), "constant" 1/(N·G·constant) (Dr. GRPO, arXiv 2503.20783), "tokens" 1/num_tokens (DAPO).
    """
    lengths_C = torch.bincount(completion_of, minlength=len(group_of))
    if normaliser == "tokens":
        return torch.full(completion_of.shape, 1.0 / num_tokens, device=completion_of.device)
    sizes_C = torch.bincount(group_of)[group_of]
    divisors_C = (num_groups * sizes_C).float()
    if normaliser == "length":
        divisors_C = divisors_C * lengths_C
    elif normaliser == "constant":
        if constant is None:
            raise ValueError("normaliser constant got no normaliser_tokens, expected a number of tokens")
        divisors_C = divisors_C * constant
    elif normaliser != "completion":
        raise ValueError(f"normaliser is {normaliser!r}, expected completion, length, tokens or constant")
    return divisors_C.reciprocal()[completion_of]


def mean_by_completion(values: torch.Tensor, completion_of: torch.Tensor, num_completions: int) -> torch.Tensor:
    """Mean over the tokens of each completion: (T,) -> (C,)."""
    counts = torch.bincount(completion_of, minlength=num_completions).clamp_min(1)
    return sum_by(values, completion_of, num_completions) / counts


def _check_shapes(
    trainer_logprobs: torch.Tensor,
    generator_logprobs: torch.Tensor,
    completion_of: torch.Tensor,
    group_of: torch.Tensor,
    rewards: torch.Tensor,
) -> None:
    if not trainer_logprobs.shape == generator_logprobs.shape == completion_of.shape or trainer_logprobs.ndim != 1:
        raise ValueError(
            f"trainer_logprobs {tuple(trainer_logprobs.shape)}, generator_logprobs {tuple(generator_logprobs.shape)}, "
            f"completion_of {tuple(completion_of.shape)}: expected one dimension, one element a token"
        )
    if group_of.shape != rewards.shape or rewards.ndim != 1:
        raise ValueError(
            f"group_of {tuple(group_of.shape)}, rewards {tuple(rewards.shape)}: expected one dimension, "
            "one element a completion"
        )
    if len(completion_of) and int(completion_of.max()) >= len(rewards):
        raise ValueError(
            f"completion_of names completion {int(completion_of.max())}, expected less than {len(rewards)}, "
            "the number of rewards"
        )


def _check_counts(num_groups: int, num_tokens: int, trainer_logprobs: torch.Tensor) -> None:
    if num_groups < 1 or num_tokens < len(trainer_logprobs):
        raise ValueError(
            f"num_groups {num_groups} and num_tokens {num_tokens}: expected the counts of the whole batch, at least 1 "
            f"and {len(trainer_logprobs)}"
        )
