"""Fewer passes over the gradient sums, the same weights to the bit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import nn

os.environ.setdefault("DS_ACCELERATOR", "cpu")
import deepspeed
from deepspeed.runtime.bf16_optimizer import BF16_Optimizer
from transformers import LlamaForCausalLM

from learner.engine import TrainingEngine, deepspeed_config
from learner.gradient_sums import spare_passes
from learner.ranks import join_ranks
from tests.learner.learner_kit import learner_config, make_model

pytestmark = pytest.mark.slow  # importing DeepSpeed takes seconds


class Fork(nn.Module):
    """Two layers, the second of which is not always used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.always, self.sometimes = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor, uses_both: bool) -> torch.Tensor:
        y = self.always(x)
        return (self.sometimes(y) if uses_both else y).square().sum()


@pytest.fixture(scope="module", autouse=True)
def ranks() -> None:
    join_ranks(0, 1, "127.0.0.1", 0)


def train(*, spares: bool) -> list[torch.Tensor]:
    """Weights after steps of one and of several micro-batches, with and without the second layer."""
    engine, *_ = deepspeed.initialize(
        model=Fork().to(torch.bfloat16),
        model_parameters=None,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, fused=True),
        config=deepspeed_config(learner_config(), 1, torch.bfloat16),
        dist_init_required=False,
    )
    assert not spares or spare_passes(engine.optimizer)
    generator = torch.Generator().manual_seed(1)
    for uses in ([True], [True, False, True], [False, False], [True], [False]):
        for number, uses_both in enumerate(uses, 1):
            engine.set_gradient_accumulation_boundary(number == len(uses))
            engine.backward(engine(torch.randn(4, 8, generator=generator).bfloat16(), uses_both))
        engine.step()
    weights = [parameter.detach().clone() for parameter in engine.module.parameters()]
    engine.destroy()
    return weights


def test_weights_are_those_of_deepspeed() -> None:
    ours, theirs = train(spares=True), train(spares=False)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(ours[2], Fork().sometimes.weight.detach().bfloat16())  # it has been trained


def test_the_trainer_has_them(tmp_path: Path) -> None:
    model = LlamaForCausalLM.from_pretrained(make_model(tmp_path), dtype=torch.bfloat16)
    engine = TrainingEngine(model, learner_config(), join_ranks(0, 1, "127.0.0.1", 0))
    # There is nothing left to spare for an optimizer that spares already.
    assert isinstance(engine._deepspeed.optimizer, BF16_Optimizer)
    assert not spare_passes(engine._deepspeed.optimizer)


def test_other_optimizers_stay_as_they_are() -> None:
    plain = torch.optim.AdamW([nn.Parameter(torch.zeros(2))])
    assert not spare_passes(plain)
    assert type(plain) is torch.optim.AdamW
