"""What a loss needs to know of a batch before its gradient: other policies' log-probabilities, and M2PO's mask.

reference   the model that the run began with        one more forward pass a step
proximal    the weights of the last broadcast        one more, but none in the step after a broadcast
kept        M2PO's mask, from the whole batch        one more, with the present weights
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from learner.batch import TrainBatch
from learner.config import AlgorithmConfig
from learner.engine import TrainingEngine
from learner.frozen import FrozenPolicy
from learner.losses import Switches, Tokens, interpolate_proximal, kept_tokens
from learner.packing import MicroBatch
from learner.ranks import Ranks

Extras = dict[str, torch.Tensor]


class Anchors:
    """The policies beside the one that trains.

    Args:
        engine: the trainer of this rank.
        algorithm: `[algorithm]`.
        temperature: that of the actors.
        ranks: this process among the others.
        reference: the model that the run began with; needed with a kl_coefficient.
        proximal: a copy whose weights `hold` replaces; needed with proximal "recomputed".
    """

    def __init__(
        self,
        engine: TrainingEngine,
        algorithm: AlgorithmConfig,
        temperature: float,
        ranks: Ranks,
        reference: FrozenPolicy | None = None,
        proximal: FrozenPolicy | None = None,
    ) -> None:
        for name, policy, is_needed in (
            ("reference", reference, algorithm.kl_coefficient > 0),
            ("proximal", proximal, algorithm.proximal == "recomputed"),
        ):
            if is_needed and policy is None:
                raise ValueError(f"[algorithm] asks for a {name} policy and none is given: expected a FrozenPolicy")
        self._engine = engine
        self._algorithm = algorithm
        self._switches = Switches(**algorithm.loss_switches)
        self._temperature = temperature
        self._ranks = ranks
        self._reference = reference
        self._proximal = proximal
        self._steps = 0

    def hold(self) -> None:
        """The present weights are broadcast: from now on they are the proximal policy. Every rank calls it."""
        self._steps = 0
        if self._proximal is not None:
            self._proximal.load(self._engine.iter_weights())

    def advance(self) -> None:
        """An optimizer step was made."""
        self._steps += 1

    @property
    def proximal_steps(self) -> int:
        """Optimizer steps from the proximal policy to the present weights."""
        lag = self._algorithm.proximal_lag
        return self._steps if lag is None else lag

    def measure(self, batch: TrainBatch, micro_batches: Sequence[MicroBatch]) -> Extras:
        """Tensors (T,) on the CPU by their names in `Tokens`, right at least at the tokens of these micro-batches.

        Every rank calls it with as many micro-batches as the others, since the trainer's forward passes are meetings.
        """
        extras: Extras = {}
        if self._reference is not None:
            extras["reference"] = self._collect(batch, micro_batches, self._reference.logprobs)
        if self._proximal is not None and self._steps > 0:
            extras["proximal"] = self._collect(batch, micro_batches, self._proximal.logprobs)
        if self._algorithm.loss == "m2po":
            extras["kept"] = self._mask(batch, micro_batches, extras)
        return extras

    def interpolated(self, held: torch.Tensor, generator: torch.Tensor, lags: torch.Tensor) -> torch.Tensor | None:
        """log π_prox of tokens without a forward pass; None where the algorithm does not interpolate. All (K,)."""
        if self._algorithm.proximal != "interpolated":
            return None
        return interpolate_proximal(held, generator, lags, self.proximal_steps)

    def _collect(
        self,
        batch: TrainBatch,
        micro_batches: Sequence[MicroBatch],
        logprobs: Callable[[MicroBatch, float], torch.Tensor],
    ) -> torch.Tensor:
        found_T = torch.zeros(batch.num_tokens)
        for micro_batch in micro_batches:
            found_T[micro_batch.token_index] = logprobs(micro_batch, self._temperature).cpu()
        return found_T

    def _mask(self, batch: TrainBatch, micro_batches: Sequence[MicroBatch], extras: Extras) -> torch.Tensor:
        def whole(values_T: torch.Tensor) -> torch.Tensor:
            # Each rank knows its own tokens and has zeros elsewhere.
            return self._ranks.sum(values_T.to(self._ranks.device)).cpu()

        trainer_T = whole(self._collect(batch, micro_batches, self._engine.plain_logprobs))
        reference_T = extras.get("reference")
        tokens = Tokens(
            trainer=trainer_T,
            held=trainer_T,
            generator=batch.generator_logprobs_T,
            completion_of=batch.completion_of_T,
            group_of=batch.group_of_C,
            rewards=batch.rewards_C,
            reference=None if reference_T is None else whole(reference_T.clone()),
        )
        return kept_tokens(tokens, self._switches, self._algorithm.m2_threshold)
