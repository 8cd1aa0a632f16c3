"""The trainer: a causal language model under DeepSpeed, one instance a rank.

    bf16, one rank or ZeRO 0, 1    bf16 weights, float32 master weights and float32 gradient sums (BF16_Optimizer)
    bf16, ZeRO 2, 3                bf16 weights, float32 master weights, gradients summed in bf16
    float32, ZeRO 0                torch's AdamW on the weights themselves
    float32, ZeRO 1, 2, 3          a float32 partition of them

Measured on one CPU core with 134 M parameters, an optimizer step costs 0.15 s in the first row, 0.22 s in a loop of
plain torch with master weights, and 0.5-1.2 s in the second row and in DeepSpeed's own stage 0. The latter also adds
up micro-batches in bf16. So stage 0 in bf16 runs as stage 1, which gives the same numbers and takes less memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

if not torch.cuda.is_available():
    # DeepSpeed chooses its device when it is imported.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
import deepspeed

from learner.config import LearnerConfig
from learner.dropout import switch_off_dropout
from learner.gradient_sums import spare_passes
from learner.packing import MicroBatch
from learner.policy import prepare_model, token_logprobs
from learner.ranks import Ranks

# One rank's state, by what it is: the float32 weights and AdamW's moments of each flat part.
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


# Shared memory for inference, which DeepSpeed compiles for half a minute at the first start if there is a compiler.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


class NonFiniteGradientError(RuntimeError):
    """The gradient is infinite or not a number; nothing of this step was committed or published."""


class Policy(nn.Module):
    """The model with log-probabilities as its forward pass, so that DeepSpeed's hooks see every parameter used."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, micro_batch: MicroBatch, temperature: float, with_entropy: bool, entropy_gradient: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """See `learner.policy.token_logprobs`."""
        return token_logprobs(
            self.model, micro_batch, temperature, with_entropy=with_entropy, entropy_gradient=entropy_gradient
        )


class TrainingEngine:
    """Forward, backward and step of one rank; every rank makes the same calls in the same order.

    Args:
        model: a causal language model of transformers, in the dtype in which it computes.
        config: `[learner]`.
        ranks: this process among the others.
    """

    def __init__(self, model: nn.Module, config: LearnerConfig, ranks: Ranks) -> None:
        self.model = model
        self._ranks = ranks
        self._config = config
        dtype = next(model.parameters()).dtype
        self._stage = zero_stage_used(config.zero_stage, dtype)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.to(ranks.device)
        self.shares_prompts = prepare_model(model, config.row_layout)
        """Whether completions of a group may share a row."""
        switch_off_dropout(model)
        # Gradient checkpointing wants the training mode.
        policy = Policy(model.train())
        self._deepspeed = _initialize(policy, config, self._stage, dtype)

    def token_logprobs(
        self, micro_batch: MicroBatch, temperature: float, with_entropy: bool = False, entropy_gradient: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(K,) log-probabilities with gradient, and (K,) entropies or None."""
        return self._deepspeed(micro_batch.to(self._ranks.device), temperature, with_entropy, entropy_gradient)

    @torch.no_grad()
    def plain_logprobs(self, micro_batch: MicroBatch, temperature: float) -> torch.Tensor:
        """(K,) log-probabilities of the present weights, without gradient."""
        return self.token_logprobs(micro_batch, temperature)[0]

    def backward(self, loss: torch.Tensor, *, is_last: bool) -> None:
        """Add the gradient of `loss`, this rank's share of the batch's sum. `is_last`: of this optimizer step."""
        self._deepspeed.set_gradient_accumulation_boundary(is_last)
        # DeepSpeed averages over the ranks; the loss is a sum over them.
        self._deepspeed.backward(loss * self._ranks.world_size)

    def step(self, lr: float) -> float:
        """Update the weights and return the gradient's norm before clipping, over all ranks.

        Raises NonFiniteGradientError; the weights may be spoilt then.
        """
        for group in self._deepspeed.optimizer.param_groups:
            group["lr"] = lr
        norm = self._plain_gradient_norm() if self._keeps_plain_gradients else None
        self._deepspeed.step()
        if norm is None:
            norm = float(self._deepspeed.get_global_grad_norm())
        if not math.isfinite(norm):
            raise NonFiniteGradientError(f"gradient norm is {norm}, expected a finite number")
        return norm

    @property
    def _keeps_plain_gradients(self) -> bool:
        """Whether gradients are in `param.grad`, already summed over the ranks, when the step begins."""
        return self._stage == 0

    def _plain_gradient_norm(self) -> float:
        gradients = [parameter.grad for parameter in self.model.parameters() if parameter.grad is not None]
        norm = float(nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm):
            raise NonFiniteGradientError(
                f"gradient norm is {norm}, expected a finite number; the weights are unchanged"
            )
        return norm

    @property
    def num_weight_bytes(self) -> int:
        """Bytes of all weights in the model's dtype, a tied one counted once."""
        # Under ZeRO 3 a weight outside a forward pass is empty, and its size stands beside it.
        return sum(
            getattr(weight, "ds_numel", weight.numel()) * weight.element_size() for weight in self.model.parameters()
        )

    def iter_weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Each weight with its name in a checkpoint; a tied one comes once. Not copied.

        Under ZeRO 3 all ranks must go through it together, to the end: each weight is gathered when its turn comes, and
        is gone after it.
        """
        for name, parameter in self.model.named_parameters():
            if self._stage == 3:
                with deepspeed.zero.GatheredParameters([parameter]):
                    yield name, parameter.detach()
            else:
                yield name, parameter.detach()

    @property
    def num_local_parameters(self) -> int:
        """Of the master weights, this rank's part under ZeRO."""
        return sum(master.numel() for master in self._masters())

    @property
    def has_moments(self) -> bool:
        """Whether the optimizer has its state: after the first step, and after a resume."""
        return any(self._deepspeed.basic_optimizer.state.get(master) for master in self._masters())

    def optimizer_state(self) -> dict[str, torch.Tensor]:
        """This rank's master weights and moments, not copied; only its part of them under ZeRO."""
        state = {}
        for index, master in enumerate(self._masters()):
            state[f"{index}.master"] = master.detach()
            moments = self._deepspeed.basic_optimizer.state.get(master, {})
            state.update({f"{index}.{name}": moments[name] for name in _MOMENTS if name in moments})
        return state

    @torch.no_grad()
    def load_optimizer_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what `optimizer_state` gave. The model's own weights must have been loaded before.

        Raises ValueError where it belongs to other weights, ranks or another ZeRO stage.
        """
        masters = list(self._masters())
        for index, master in enumerate(masters):
            saved = state.get(f"{index}.master")
            if saved is None or saved.shape != master.shape:
                got = None if saved is None else tuple(saved.shape)
                raise ValueError(f"part {index} of the optimizer state is {got}, expected {tuple(master.shape)}")
            master.copy_(saved)
            moments = {name: state[f"{index}.{name}"] for name in _MOMENTS if f"{index}.{name}" in state}
            if moments:
                self._deepspeed.basic_optimizer.state[master] = {
                    name: value.to(master.device if name != "step" else value.device).clone()
                    for name, value in moments.items()
                }

    def _masters(self) -> Iterator[torch.Tensor]:
        optimizer = self._deepspeed.optimizer
        if self._stage == 3:
            yield from optimizer.fp32_partitioned_groups_flat
        else:
            for group in self._deepspeed.basic_optimizer.param_groups:
                yield from group["params"]

    def close(self) -> None:
        """Remove DeepSpeed's hooks from the model."""
        self._deepspeed.destroy()


def zero_stage_used(stage: int, dtype: torch.dtype) -> int:
    """The ZeRO stage that runs for the one configured; see the top of this file."""
    return 1 if stage == 0 and dtype == torch.bfloat16 else stage


def _initialize(policy: Policy, config: LearnerConfig, stage: int, dtype: torch.dtype) -> Any:
    def build_optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameters,
            lr=config.lr,
            betas=config.betas,
            eps=config.eps,
            weight_decay=config.weight_decay,
            fused=True,
        )

    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=policy,
        model_parameters=parameters,
        optimizer=build_optimizer,
        config=deepspeed_config(config, stage, dtype),
        dist_init_required=False,
    )
    spare_passes(engine.optimizer)
    return engine


def deepspeed_config(config: LearnerConfig, stage: int, dtype: torch.dtype) -> dict[str, Any]:
    """DeepSpeed's configuration. Micro-batches are ours to count: their number differs from step to step."""
    settings: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.grad_clip or 0.0,
        "steps_per_print": None,
        "communication_data_type": "fp32",
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": stage,
            # Overlap needs streams; on the CPU it only adds copies.
            "overlap_comm": torch.cuda.is_available(),
        },
    }
    if dtype == torch.bfloat16:
        settings["bf16"] = {"enabled": True, "immediate_grad_update": True}
        if stage == 1:
            settings["data_types"] = {"grad_accum_dtype": "fp32"}
    return settings
