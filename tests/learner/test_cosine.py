from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from learner.cosine import gradient_cosine, split_by_lag
from learner.packing import MicroBatch
from learner.ranks import Ranks
from tests.learner.batch_kit import make_batch

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
