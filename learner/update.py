"""One optimizer step on one batch: micro-batches, loss, gradient, and what is worth knowing about them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from learner.anchors import Anchors, Extras
from learner.batch import TrainBatch, split_groups
from learner.config import AlgorithmConfig, LearnerConfig
from learner.cosine import gradient_cosine, split_by_lag
from learner.diagnostics import batch_diagnostics
from learner.engine import NonFiniteGradientError, TrainingEngine
from learner.losses import PolicyLoss, Switches, Tokens, policy_loss
from learner.packing import MicroBatch, count_micro_batches, pack_micro_batches
from learner.policy import attention_cost, token_logprobs
from learner.ranks import Ranks


@dataclass(frozen=True)
class Update:
    """What one optimizer step did. The same on every rank."""

    loss: float
    grad_norm: float
    entropy: float | None
    """Mean over the batch's tokens, in nats; None where it is not measured."""
    extra: dict[str, float]
    """The loss's own metrics by name, and `gradient_cosine` where it was measured."""
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
        anchors: the policies beside the one that trains; None makes those that need no weights of their own.
    """

    def __init__(
        self,
        engine: TrainingEngine,
        learner: LearnerConfig,
        algorithm: AlgorithmConfig,
        temperature: float,
        ranks: Ranks,
        anchors: Anchors | None = None,
    ) -> None:
        self._engine = engine
        self._learner = learner
        self._algorithm = algorithm
        self._switches = Switches(**algorithm.loss_switches)
        self._temperature = temperature
        self._ranks = ranks
        self.anchors = anchors if anchors is not None else Anchors(engine, algorithm, temperature, ranks)

    def update(self, batch: TrainBatch, lr: float, *, with_cosine: bool = False) -> Update:
        """Train on the whole batch, shared among the ranks; `with_cosine` measures `gradient_cosine` before.

        Raises NonFiniteGradientError for a loss or a gradient that is not finite.
        """
        micro_batches = self.lay_out(batch)
        extras = self.anchors.measure(batch, micro_batches)
        cosine = self._cosine(batch, micro_batches, extras) if with_cosine else None
        found_T, is_spoilt_N = torch.zeros(2, batch.num_tokens), torch.zeros(batch.num_groups)
        sums: dict[str, torch.Tensor] = {}
        for position, micro_batch in enumerate(micro_batches):
            found_K, metrics = self._accumulate(batch, micro_batch, extras, is_last=position == len(micro_batches) - 1)
            found_T[:, micro_batch.token_index] = found_K.cpu()
            if not bool(metrics["loss"].isfinite()):
                is_spoilt_N[list(micro_batch.groups)] = 1.0
            sums = {name: sums.get(name, 0.0) + value for name, value in metrics.items()}
        self._require_finite_losses(is_spoilt_N)
        grad_norm = self._engine.step(lr)
        self.anchors.advance()
        update = self._describe(batch, found_T, sums, grad_norm, len(micro_batches))
        return update if cosine is None else replace(update, extra=update.extra | {"gradient_cosine": cosine})

    def rehearse(self, batch: TrainBatch) -> None:
        """Forward and backward passes over the batch, shared among the ranks, that add a gradient of 0."""
        for micro_batch in self.lay_out(batch):
            logprobs_K, _ = self._token_logprobs(micro_batch)
            self._engine.backward(0.0 * logprobs_K.sum(), is_last=False)

    def lay_out(self, batch: TrainBatch) -> list[MicroBatch]:
        """This rank's part of the batch; as many micro-batches as on every other rank."""
        hands = split_groups(batch.group_tokens(), self._ranks.world_size)
        # Under ZeRO 2 and 3 every forward and backward pass is a meeting of all ranks.
        count = max(count_micro_batches(batch, hand, **self._layout) for hand in hands)
        return pack_micro_batches(batch, hands[self._ranks.rank], min_count=count, **self._layout)

    @property
    def _layout(self) -> dict[str, Any]:
        return {
            "max_tokens": self._learner.micro_batch_tokens,
            "attention_cost": attention_cost(self._engine.model),
            "share_prompts": self._engine.shares_prompts,
        }

    def _accumulate(
        self, batch: TrainBatch, micro_batch: MicroBatch, extras: Extras, *, is_last: bool
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """One micro-batch's gradient; its (2, K) log-probabilities and clipped tokens, and its metrics."""
        logprobs_K, entropy_K = self._token_logprobs(micro_batch)
        loss, metrics, clipped_K = self._loss(batch, micro_batch, extras, logprobs_K, entropy_K)
        self._engine.backward(loss, is_last=is_last)
        if entropy_K is not None:
            metrics["entropy"] = entropy_K.detach().sum() / batch.num_tokens
        return torch.stack([logprobs_K.detach(), clipped_K]), metrics

    def _require_finite_losses(self, is_spoilt_N: torch.Tensor) -> None:
        """Raise on all ranks alike where one of them has a loss that is not finite: all meet in the step."""
        groups = self._ranks.sum(is_spoilt_N.to(self._ranks.device)).nonzero().flatten().tolist()
        if groups:
            raise NonFiniteGradientError(
                f"the loss of groups {groups} is not finite, expected a finite number; the weights are unchanged"
            )

    def _token_logprobs(self, micro_batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor | None]:
        has_bonus = self._algorithm.entropy_coefficient > 0
        return self._engine.token_logprobs(
            micro_batch, self._temperature, self._learner.entropy or has_bonus, has_bonus
        )

    def _loss(
        self,
        batch: TrainBatch,
        micro_batch: MicroBatch,
        extras: Extras,
        logprobs_K: torch.Tensor,
        entropy_K: torch.Tensor | None,
    ) -> PolicyLoss:
        part, device, held_K = batch.select_groups(micro_batch.groups), logprobs_K.device, logprobs_K.detach()
        beside = {name: values_T[micro_batch.token_index].to(device) for name, values_T in extras.items()}
        generator_K, lags_K = part.generator_logprobs_T.to(device), part.lags_T.to(device)
        tokens = Tokens(
            trainer=logprobs_K,
            held=held_K,
            generator=generator_K,
            completion_of=part.completion_of_T.to(device),
            group_of=part.group_of_C.to(device),
            rewards=part.rewards_C.to(device),
            lags=lags_K,
            proximal=beside.pop("proximal", self.anchors.interpolated(held_K, generator_K, lags_K)),
            entropies=entropy_K,
            **beside,
        )
        return policy_loss(tokens, self._switches, num_groups=batch.num_groups, num_tokens=batch.num_tokens)

    def _cosine(self, batch: TrainBatch, micro_batches: list[MicroBatch], extras: Extras) -> float | None:
        halves = split_by_lag(batch)
        if halves is None:
            return None
        model, has_bonus = self._engine.model, self._algorithm.entropy_coefficient > 0

        def loss_of(micro_batch: MicroBatch) -> torch.Tensor:
            moved = micro_batch.to(self._ranks.device)
            logprobs_K, entropy_K = token_logprobs(
                model, moved, self._temperature, with_entropy=has_bonus, entropy_gradient=has_bonus
            )
            return self._loss(batch, micro_batch, extras, logprobs_K, entropy_K).loss

        return gradient_cosine(
            halves,
            [group for micro_batch in micro_batches for group in micro_batch.groups],
            lambda groups: pack_micro_batches(batch, groups, **self._layout),
            loss_of,
            [parameter for parameter in model.parameters() if parameter.requires_grad],
            self._ranks,
        )

    def _describe(
        self,
        batch: TrainBatch,
        found_T: torch.Tensor,
        sums: dict[str, torch.Tensor],
        grad_norm: float,
        num_micro_batches: int,
    ) -> Update:
        # Each rank knows its own tokens and has zeros elsewhere, so the sum is the whole.
        logprobs_T, clipped_T = self._ranks.sum(found_T.to(self._ranks.device)).cpu()
        names = sorted(sums)
        totals = self._ranks.sum(torch.stack([sums[name].double() for name in names])).tolist()
        extra = dict(zip(names, totals, strict=True))
        diagnostics = batch_diagnostics(
            logprobs_T,
            batch.generator_logprobs_T,
            batch.lags_T,
            batch.completion_of_T,
            clipped_T,
            level=self._algorithm.ratio_level,
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
