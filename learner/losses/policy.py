"""The loss of a batch: a weight, a surrogate and advantages for each token, scaled and added up.

    loss = −Σ_t scale_t · weight_t · surrogate_t  + β Σ_t scale_t · kl_t  − c Σ_t scale_t · entropy_t

A method is a weight and a surrogate; r = π/μ, k = π_prox/μ, ρ = π/π_prox, all else in docs/algorithm.md:

    rapid            min(max(r, low), high) at a level        A log π
    cispo            the same per token                       A log π
    policy_gradient  1                                        A log π
    sft              1                                        1[reward ≥ full] log π
    tis              min(max(k, low), high)                   min(ρA, clip(ρ)A)
    icepop           k, or 0 outside a band                   min(ρA, clip(ρ)A)
    decoupled_ppo    k, or 0 above a bound                    min(ρA, clip(ρ)A)
    grpo, ppo        1                                        min(rA, clip(r)A)
    gspo             1                                        min(sA, clip(s)A), s = r of the sequence ^ (1/|y|)
    m2po             1, or 0 where masked                     rA
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from learner.advantages import group_advantages
from learner.losses.penalties import kl_terms, penalised_rewards
from learner.losses.ratios import mean_by_completion, spread_log_ratios
from learner.losses.scales import token_scales
from learner.losses.second_moment import second_moment_mask
from learner.losses.surrogates import Terms, clipped_surrogate, ratio_terms, score_terms
from learner.losses.tokens import Tokens, require
from learner.losses.weights import importance_weights, masked_weights

Metrics = dict[str, torch.Tensor]

WEIGHTED = ("rapid", "cispo")
ANCHORED = ("tis", "icepop", "decoupled_ppo")
CLIPPED = ("grpo", "ppo", "gspo")
LOSSES = (*WEIGHTED, *ANCHORED, *CLIPPED, "policy_gradient", "m2po", "sft")


class PolicyLoss(NamedTuple):
    """What `policy_loss` gives."""

    loss: torch.Tensor
    """The sum, with gradient."""
    metrics: Metrics
    """Numbers that add up over micro-batches and ranks just as the loss does."""
    clipped: torch.Tensor
    """(T,), 1 where the loss clipped, cut or masked a token, else 0."""


@dataclass(frozen=True, kw_only=True)
class Switches:
    """What a loss is: fields of AlgorithmConfig, which says what each means."""

    loss: str = "rapid"
    weight_level: str = "sequence"
    weight_clip: float | None = 2.0
    weight_clip_low: float | None = None
    clip_lag_factor: float = 1.0
    baseline: str = "weighted"
    advantage_scale: str = "none"
    normaliser: str = "completion"
    normaliser_tokens: int | None = None
    clip_low: float = 0.2
    clip_high: float = 0.2
    mask_low: float | None = None
    mask_high: float | None = 5.0
    sft_reward: float = 1.0
    kl_coefficient: float = 0.0
    kl_estimator: str = "k3"
    entropy_coefficient: float = 0.0


def policy_loss(tokens: Tokens, switches: Switches, *, num_groups: int, num_tokens: int) -> PolicyLoss:
    """Loss of whole groups, given the counts of the whole batch: `num_groups` and `num_tokens`.

    Metrics, each a mean over groups of the mean over their completions, in which each token counts alike: `loss`,
    `advantage_abs`, `weight` (what multiplies A ∇log π before a clip cuts it), `clipped`, and `kl_reference` (k3, in
    nats a token) where a reference is given.
    Raises ValueError for `num_tokens` below the tokens' own and `num_groups` below 1, for unknown switches, and for
    tensors that a switch needs.
    """
    if num_groups < 1 or num_tokens < len(tokens.trainer):
        raise ValueError(
            f"num_groups {num_groups} and num_tokens {num_tokens}: expected the counts of the whole batch, at least 1 "
            f"and {len(tokens.trainer)}"
        )
    weights, outside = correction(tokens, switches)
    advantages = completion_advantages(tokens, switches, weights)[tokens.completion_of]
    terms, ratios, cut = surrogate(tokens, switches, advantages)

    def scale(normaliser: str) -> torch.Tensor:
        return token_scales(
            tokens.completion_of,
            tokens.group_of,
            normaliser,
            num_groups=num_groups,
            num_tokens=num_tokens,
            constant=switches.normaliser_tokens,
            dtype=tokens.trainer.dtype,
        )

    scales, shares = scale(switches.normaliser), scale("length")
    total = (scales * (_penalties(tokens, switches) - weights * terms)).sum()
    clipped = torch.maximum(outside, cut)
    metrics = {
        "loss": total.detach(),
        "advantage_abs": (shares * advantages.abs()).sum(),
        "weight": (shares * weights * ratios).sum(),
        "clipped": (shares * clipped).sum(),
    }
    if tokens.reference is not None:
        metrics["kl_reference"] = (shares * kl_terms(tokens.held - tokens.reference, "k3")).sum()
    return PolicyLoss(total, metrics, clipped)


def correction(tokens: Tokens, switches: Switches) -> tuple[torch.Tensor, torch.Tensor]:
    """The weight of every token, and 1 where it was clipped or masked: both (T,), detached."""
    loss, log_weights = switches.loss, tokens.anchor - tokens.generator
    if loss in WEIGHTED or loss == "tis":
        return importance_weights(
            tokens.held_log_ratios if loss in WEIGHTED else log_weights,
            tokens.completion_of,
            tokens.num_completions,
            switches.weight_level if loss == "rapid" else "token",
            switches.weight_clip,
            switches.weight_clip_low,
            lags=tokens.lags,
            lag_factor=switches.clip_lag_factor,
        )
    if loss in ANCHORED:
        return masked_weights(log_weights, switches.mask_low, switches.mask_high)
    ones = torch.ones_like(tokens.held)
    if loss == "m2po":
        kept = require(tokens.kept, "kept", "loss m2po").to(ones.dtype)
        return kept, 1 - kept
    if loss not in LOSSES:
        raise ValueError(f"loss is {loss!r}, expected one of {', '.join(LOSSES)}")
    return ones, torch.zeros_like(ones)


def completion_advantages(tokens: Tokens, switches: Switches, weights: torch.Tensor) -> torch.Tensor:
    """What each completion is worth, (C,), detached; `weights` (T,) are those of the baseline."""
    if switches.loss == "sft":
        return (tokens.rewards >= switches.sft_reward).to(tokens.held.dtype)
    if switches.loss == "m2po":
        weights = torch.ones_like(weights)
    rewards = task_rewards = tokens.rewards.to(tokens.held.dtype)
    if switches.kl_coefficient > 0 and switches.kl_estimator == "k1":
        log_ratios = tokens.held - require(tokens.reference, "reference", "kl_coefficient")
        rewards = penalised_rewards(rewards, log_ratios, tokens.completion_of, switches.kl_coefficient)
    weights_C = mean_by_completion(weights, tokens.completion_of, tokens.num_completions)
    return group_advantages(
        rewards,
        weights_C,
        tokens.group_of,
        baseline=switches.baseline,
        advantage_scale=switches.advantage_scale,
        # In a group of equal rewards the penalties' own deviation would cancel β: their size would not matter.
        scale_rewards=task_rewards,
    )[0]


def surrogate(tokens: Tokens, switches: Switches, advantages: torch.Tensor) -> Terms:
    """What the gradient goes through; see `learner.losses.surrogates`."""
    if switches.loss in CLIPPED:
        level = "length_normalised" if switches.loss == "gspo" else "token"
        log_ratios = spread_log_ratios(tokens.log_ratios, tokens.completion_of, tokens.num_completions, level)
        return clipped_surrogate(log_ratios, advantages, switches.clip_low, switches.clip_high)
    if switches.loss in ANCHORED:
        return clipped_surrogate(tokens.trainer - tokens.anchor, advantages, switches.clip_low, switches.clip_high)
    if switches.loss == "m2po":
        return ratio_terms(tokens.log_ratios, advantages)
    return score_terms(tokens.trainer, advantages)


def kept_tokens(tokens: Tokens, switches: Switches, threshold: float) -> torch.Tensor:
    """M2PO's mask for a whole batch, bool (T,): it belongs to the batch, and cannot be told from a part of it."""
    advantages = completion_advantages(tokens, switches, torch.ones_like(tokens.held))
    return second_moment_mask(tokens.held_log_ratios, advantages[tokens.completion_of], threshold)


def _penalties(tokens: Tokens, switches: Switches) -> torch.Tensor:
    """β kl − c entropy of every token, (T,)."""
    found = torch.zeros_like(tokens.held)
    if switches.kl_coefficient > 0 and switches.kl_estimator != "k1":
        reference = require(tokens.reference, "reference", "kl_coefficient")
        found = found + switches.kl_coefficient * kl_terms(tokens.trainer - reference, switches.kl_estimator)
    if switches.entropy_coefficient > 0:
        entropies = require(tokens.entropies, "entropies", "entropy_coefficient")
        found = found - switches.entropy_coefficient * entropies
    return found
