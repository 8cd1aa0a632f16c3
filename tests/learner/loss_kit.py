"""Losses of small batches, and every method with the tensors that it needs."""

from __future__ import annotations

import torch

from learner.batch import TrainBatch
from learner.losses import PolicyLoss, Switches, Tokens, kept_tokens, policy_loss

SHAPES = [(3, [2, 4, 1]), (5, [3, 3, 2]), (1, [1, 5, 2]), (4, [2, 2, 2])]
NORMALISERS = ("completion", "length", "tokens", "constant")
# Of every loss the switches that matter to it; thresholds such that some tokens of `perturbed` are clipped, some not.
METHODS = {
    "rapid": {"loss": "rapid", "weight_clip": 1.2, "weight_clip_low": 0.9},
    "rapid-token": {"loss": "rapid", "weight_level": "token", "weight_clip": 1.2, "baseline": "self_normalised"},
    "rapid-normalised": {
        "loss": "rapid",
        "weight_level": "length_normalised",
        "weight_clip": 1.1,
        "baseline": "leave_one_out",
    },
    "rapid-lag": {"loss": "rapid", "clip_lag_factor": 0.5, "weight_clip": 1.5, "weight_clip_low": 0.5},
    "policy_gradient": {"loss": "policy_gradient", "baseline": "leave_one_out"},
    "cispo": {"loss": "cispo", "weight_clip": 1.2, "baseline": "plain", "advantage_scale": "std"},
    "tis": {"loss": "tis", "weight_clip": 1.1, "clip_low": 0.1, "clip_high": 0.1},
    "icepop": {"loss": "icepop", "mask_low": 0.8, "mask_high": 1.2, "baseline": "plain"},
    "decoupled_ppo": {
        "loss": "decoupled_ppo",
        "mask_high": 1.2,
        "clip_low": 0.1,
        "clip_high": 0.1,
        "baseline": "plain",
    },
    "grpo": {"loss": "grpo", "baseline": "plain", "advantage_scale": "std"},
    "ppo": {"loss": "ppo", "baseline": "plain", "clip_high": 0.28},
    "gspo": {"loss": "gspo", "baseline": "plain", "clip_low": 0.05, "clip_high": 0.05},
    "m2po": {"loss": "m2po", "baseline": "plain"},
    "sft": {"loss": "sft"},
    "kl-k1": {"loss": "rapid", "weight_clip": 1.2, "kl_coefficient": 0.1, "kl_estimator": "k1"},
    "kl-k2": {"loss": "policy_gradient", "kl_coefficient": 0.1, "kl_estimator": "k2"},
    "kl-k3": {"loss": "grpo", "kl_coefficient": 0.1, "kl_estimator": "k3"},
    "entropy": {"loss": "rapid", "weight_clip": 1.2, "entropy_coefficient": 0.1},
}
METHODS |= {
    f"{name}-{normaliser}": METHODS[name] | {"normaliser": normaliser, "normaliser_tokens": 7}
    for name in ("rapid", "grpo", "gspo", "decoupled_ppo", "m2po", "kl-k3")
    for normaliser in NORMALISERS[1:]
}
M2_THRESHOLD = 0.02
# The same estimator with all ratios 1, by the loss.
ON_POLICY = {name: options for name, options in METHODS.items() if "kl" not in name and "entropy" not in name}


def extras_of(batch: TrainBatch, trainer: torch.Tensor, switches: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    """What other policies would have given for the batch, by names in Tokens, in the trainer's type."""
    generator = torch.Generator().manual_seed(seed + 77)

    def noise(spread: float) -> torch.Tensor:
        return spread * torch.randn(batch.num_tokens, generator=generator).to(trainer.dtype)

    held = trainer.detach()
    extras = {"reference": held + noise(0.2), "proximal": (held + batch.generator_logprobs_T) / 2 + noise(0.05)}
    tokens = tokens_of(batch, trainer, extras=extras)
    return extras | {"kept": kept_tokens(tokens, Switches(**switches), M2_THRESHOLD)}


def tokens_of(
    batch: TrainBatch, trainer: torch.Tensor, *, extras: dict | None = None, held: torch.Tensor | None = None
) -> Tokens:
    """The batch's tokens; entropies that depend on the trainer, as a stand-in for those of a model."""
    return Tokens(
        trainer=trainer,
        held=trainer.detach() if held is None else held,
        generator=batch.generator_logprobs_T.to(trainer.dtype),
        completion_of=batch.completion_of_T,
        group_of=batch.group_of_C,
        rewards=batch.rewards_C.to(trainer.dtype),
        lags=batch.lags_T,
        entropies=-trainer * trainer.exp(),
        **(extras or {}),
    )


def loss_of(batch: TrainBatch, trainer: torch.Tensor, *, counts=None, extras=None, held=None, **switches) -> PolicyLoss:
    """The loss of a batch, or of a part of one that has `counts` (groups, tokens)."""
    num_groups, num_tokens = counts or (batch.num_groups, batch.num_tokens)
    tokens = tokens_of(batch, trainer, extras=extras, held=held)
    return policy_loss(tokens, Switches(**switches), num_groups=num_groups, num_tokens=num_tokens)


def of_batch(batch: TrainBatch, trainer: torch.Tensor, **options) -> tuple[torch.Tensor, torch.Tensor, dict]:
    """The loss of a batch, its gradient by token, and the metrics."""
    loss, metrics, _ = loss_of(batch, trainer, **options)
    (gradient,) = torch.autograd.grad(loss, trainer)
    return loss.detach(), gradient, metrics
