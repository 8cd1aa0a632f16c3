"""One optimizer step on one batch: micro-batches, loss, gradient, and what is worth knowing about them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from learner.batch import TrainBatch, split_groups
from learner.config import AlgorithmConfig, LearnerConfig
from learner.diagnostics import batch_diagnostics
from learner.engine import NonFiniteGradientError, TrainingEngine
from learner.losses import policy_loss
from learner.packing import MicroBatch, count_micro_batches, pack_micro_batches
from learner.policy import attention_cost
from learner.ranks import Ranks


@dataclass(frozen=True)
class Update:
    """What one optimizer step did. The same on every rank."""

    loss: float
    grad_norm: float
    entropy: float | None
    """Mean over the batch's tokens, in nats; None where it is not measured."""
    extra: dict[str, float]
    """The loss's own metrics by name."""
    diagnostics: dict[str, object]
    """See `learner.diagnostics.batch_diagnostics`."""
    num_micro_batches: int
    """Forward passes of each rank."""


class Updater:
    """Makes optimizer steps.

    Args:
        engine: the trainer of this rank.
        learner, algorithm: `[learner]` and `[algorithm]`.
        temperature: that of the actors.
        ranks: this process among the others.
    """

    def __init__(
        self,
        engine: TrainingEngine,
        learner: LearnerConfig,
        algorithm: AlgorithmConfig,
        temperature: float,
        ranks: Ranks,
    ) -> None:
        self._engine = engine
        self._learner = learner
        self._algorithm = algorithm
        self._loss_options = algorithm.model_dump()
        self._temperature = temperature
        self._ranks = ranks

    def update(self, batch: TrainBatch, lr: float) -> Update:
        """Train on the whole batch, shared among the ranks.

        Raises NonFiniteGradientError for a loss or a gradient that is not finite.
        """
        micro_batches = self._pack(batch)
        logprobs_T = torch.zeros(batch.num_tokens)
        sums: dict[str, torch.Tensor] = {}
        for position, micro_batch in enumerate(micro_batches):
            logprobs_K, metrics = self._accumulate(batch, micro_batch, is_last=position == len(micro_batches) - 1)
            logprobs_T[micro_batch.token_index] = logprobs_K.cpu()
            sums = {name: sums.get(name, 0.0) + value for name, value in metrics.items()}
        grad_norm = self._engine.step(lr)
        return self._describe(batch, logprobs_T, sums, grad_norm, len(micro_batches))

    def _pack(self, batch: TrainBatch) -> list[MicroBatch]:
        hands = split_groups(batch.group_tokens(), self._ranks.world_size)
        options: dict[str, Any] = {
            "max_tokens": self._learner.micro_batch_tokens,
            "attention_cost": attention_cost(self._engine.model),
            "share_prompts": self._engine.shares_prompts,
        }
        # Under ZeRO 2 and 3 every forward and backward pass is a meeting of all ranks.
        count = max(count_micro_batches(batch, hand, **options) for hand in hands)
        return pack_micro_batches(batch, hands[self._ranks.rank], min_count=count, **options)

    def _accumulate(
        self, batch: TrainBatch, micro_batch: MicroBatch, *, is_last: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logprobs_K, entropy_K = self._engine.token_logprobs(micro_batch, self._temperature, self._learner.entropy)
        part, device = batch.select_groups(micro_batch.groups), logprobs_K.device
        loss, metrics = policy_loss(
            logprobs_K,
            part.generator_logprobs_T.to(device),
            part.completion_of_T.to(device),
            part.group_of_C.to(device),
            part.rewards_C.to(device),
            num_groups=batch.num_groups,
            num_tokens=batch.num_tokens,
            **self._loss_options,
        )
        if not bool(loss.detach().isfinite()):
            raise NonFiniteGradientError(
                f"loss is {loss.detach()} on groups {micro_batch.groups}, expected a finite number"
            )
        self._engine.backward(loss, is_last=is_last)
        if entropy_K is not None:
            metrics["entropy"] = entropy_K.sum() / batch.num_tokens
        return logprobs_K.detach(), metrics

    def _describe(
        self,
        batch: TrainBatch,
        logprobs_T: torch.Tensor,
        sums: dict[str, torch.Tensor],
        grad_norm: float,
        num_micro_batches: int,
    ) -> Update:
        # Each rank knows its own tokens and has zeros elsewhere, so the sum is the whole.
        logprobs_T = self._ranks.sum(logprobs_T.to(self._ranks.device)).cpu()
        names = sorted(sums)
        totals = self._ranks.sum(torch.stack([sums[name].double() for name in names])).tolist()
        extra = dict(zip(names, totals, strict=True))
        diagnostics = batch_diagnostics(
            logprobs_T,
            batch.generator_logprobs_T,
            batch.lags_T,
            batch.completion_of_T,
            level=self._algorithm.ratio_level,
            bounds=self._algorithm.ratio_bounds,
        )
        return Update(
            loss=extra.pop("loss"),
            grad_norm=grad_norm,
            entropy=extra.pop("entropy", None),
            extra=extra,
            diagnostics=diagnostics,
            num_micro_batches=num_micro_batches,
        )


def learning_rate(step: int, steps: int, config: LearnerConfig) -> float:
    """That of the step after `step` others, of `steps` in all: a linear rise from lr / warmup_steps, then the decay."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    left = {"none": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[config.lr_decay]
    return config.lr * (config.lr_end + (1 - config.lr_end) * left)
