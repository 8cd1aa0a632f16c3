from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from learner.batch import TrainBatch, build_batch
from learner.config import AlgorithmConfig
from learner.cosine import gradient_cosine, split_by_lag
from learner.engine import TrainingEngine
from learner.packing import MicroBatch
from learner.ranks import Ranks, join_ranks
from learner.update import Updater
from protocol.version import Lineage, PolicyVersion
from tests.learner.batch_kit import make_batch
from tests.learner.learner_kit import learner_config, make_groups, make_model

ALONE = Ranks(0, 1, torch.device("cpu"))


def batch_with_lags(*lags: int):
    """Groups of two completions of two tokens, each group of one lag."""
    batch = make_batch([(2, [2, 2])] * len(lags))
    return replace(batch, lags_T=torch.tensor(lags).repeat_interleave(4))


def test_groups_are_split_by_their_mean_lag() -> None:
    assert split_by_lag(batch_with_lags(3, 0, 2, 1)) == ([1, 3], [0, 2])
    assert split_by_lag(batch_with_lags(1, 0, 1)) == ([1], [0, 2])
    mixed = batch_with_lags(1, 1)
    mixed = replace(mixed, lags_T=torch.tensor([0, 0, 0, 4, 0, 0, 0, 0]))
    assert split_by_lag(mixed) == ([1], [0])


def test_groups_of_one_lag_have_no_halves() -> None:
    assert split_by_lag(batch_with_lags(2, 2, 2)) is None
    assert split_by_lag(batch_with_lags(1)) is None


def cosine_of(gradients: dict[int, list[float]], halves: tuple[list[int], list[int]]) -> float | None:
    """The cosine where each group's loss has the gradient given; two groups a micro-batch."""
    weight, bias = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))

    def pack(groups: list[int]) -> list[MicroBatch]:
        return [groups[i : i + 2] for i in range(0, len(groups), 2)]

    def loss_of(groups: list[int]) -> torch.Tensor:
        return sum(weight @ torch.tensor(gradients[group][:2]) + bias[0] * gradients[group][2] for group in groups)

    return gradient_cosine(halves, sorted(gradients), pack, loss_of, [weight, bias], ALONE)


@pytest.mark.parametrize(
    ("fresh", "stale", "expected"),
    [
        ([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], 1.0),
        ([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0], -1.0),
        ([1.0, 0.0, 0.0], [0.0, 0.0, 5.0], 0.0),
        ([1.0, 0.0, 0.0], [1.0, 0.0, 1.0], math.sqrt(0.5)),
    ],
)
def test_cosine_of_known_gradients(fresh, stale, expected) -> None:
    assert cosine_of({0: fresh, 1: stale}, ([0], [1])) == pytest.approx(expected, abs=1e-6)


def test_the_gradient_of_a_half_is_the_sum_over_its_micro_batches() -> None:
    # Fresh: (1, 0, 0) + (0, 1, 0) + (1, 0, 0) = (2, 1, 0); stale (0, 3, 0): cosine 1/√5.
    gradients = {0: [1.0, 0.0, 0.0], 1: [0.0, 1.0, 0.0], 2: [1.0, 0.0, 0.0], 3: [0.0, 3.0, 0.0]}
    assert cosine_of(gradients, ([0, 1, 2], [3])) == pytest.approx(1 / math.sqrt(5), abs=1e-6)


def test_a_half_without_gradient_has_no_cosine() -> None:
    assert cosine_of({0: [1.0, 0.0, 0.0], 1: [0.0, 0.0, 0.0]}, ([0], [1])) is None


def half_gradient(model: LlamaForCausalLM, batch: TrainBatch, groups: list[int]) -> torch.Tensor:
    """Of RAPID's loss on some groups of three completions, each completion in a pass of its own; flat."""
    loss = torch.zeros(())
    ends_T, ends_P = batch.lengths_C.cumsum(0), batch.prompt_lengths_N.cumsum(0)
    for group in groups:
        prompt = batch.prompt_ids_P[ends_P[group] - batch.prompt_lengths_N[group] : ends_P[group]]
        found = []
        for one in (batch.group_of_C == group).nonzero().flatten().tolist():
            places = slice(int(ends_T[one] - batch.lengths_C[one]), int(ends_T[one]))
            tokens = batch.token_ids_T[places]
            logits = model(input_ids=torch.cat([prompt, tokens])[None]).logits[0, len(prompt) - 1 : -1]
            total = logits.log_softmax(-1)[torch.arange(len(tokens)), tokens].sum()
            weight = (total.detach() - batch.generator_logprobs_T[places].sum()).exp().clamp(max=2.0)
            found.append((total, weight, batch.rewards_C[one]))
        baseline = sum(weight * reward for _, weight, reward in found) / len(found)
        loss = loss - sum(weight * (reward - baseline) * total for total, weight, reward in found)
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))])


def test_the_cosine_of_a_batch_is_that_of_two_backward_passes_of_ones_own(tmp_path: Path) -> None:
    model_dir, version = make_model(tmp_path), PolicyVersion(1, 0)
    batch = build_batch(make_groups(model_dir, version), Lineage(), version)
    noise_T = 0.2 * torch.randn(batch.num_tokens, generator=torch.Generator().manual_seed(0))
    stale_T = torch.isin(batch.group_of_C[batch.completion_of_T], torch.tensor([0, 3]))
    batch = replace(batch, generator_logprobs_T=batch.generator_logprobs_T + noise_T, lags_T=2 * stale_T.long())
    join_ranks(0, 1, "127.0.0.1", 0)

    def load() -> LlamaForCausalLM:
        return LlamaForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="sdpa")

    engine = TrainingEngine(load(), learner_config(), ALONE)
    updater = Updater(engine, learner_config(), AlgorithmConfig(), 1.0, ALONE)
    found = updater.update(batch, lr=1e-3, with_cosine=True).extra["gradient_cosine"]
    engine.close()
    fresh, stale = (half_gradient(load(), batch, groups) for groups in ([1, 2], [0, 3]))
    expected = float(torch.nn.functional.cosine_similarity(fresh, stale, dim=0))
    assert abs(expected) < 0.99
    assert found == pytest.approx(expected, abs=1e-4)
