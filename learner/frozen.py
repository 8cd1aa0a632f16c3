"""A copy of the weights that does not train: the reference model, and the proximal policy.

It is whole on every rank, whatever the ZeRO stage, in the model's dtype, and runs without DeepSpeed.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from learner.packing import MicroBatch
from learner.policy import prepare_model, token_logprobs


class FrozenPolicy:
    """A policy that gives log-probabilities without gradient.

    Args:
        model: a causal language model of transformers, which it keeps.
        row_layout: as `learner.row_layout`, so that it takes the trainer's micro-batches.
        device: where it computes.
    """

    def __init__(self, model: nn.Module, row_layout: str, device: torch.device) -> None:
        self._device = device
        self._model = model.to(device).eval().requires_grad_(False)
        prepare_model(self._model, row_layout)

    @torch.no_grad()
    def logprobs(self, micro_batch: MicroBatch, temperature: float) -> torch.Tensor:
        """(K,) log-probabilities of the completion tokens, on the device."""
        return token_logprobs(self._model, micro_batch.to(self._device), temperature)[0]

    @torch.no_grad()
    def load(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take over all of `weights`, named as in `TrainingEngine.iter_weights`.

        Raises ValueError for a name that the model does not have, and for one that is missing.
        """
        own = dict(self._model.named_parameters())
        for name, weight in weights:
            if name not in own:
                raise ValueError(f"weight {name} is not one of the frozen policy's, or came twice")
            own.pop(name).copy_(weight)
        if own:
            raise ValueError(f"weights {sorted(own)} did not come, expected all of the policy's")
