"""How far the gradient of a batch's staler half agrees with that of its fresher half."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from learner.batch import TrainBatch
from learner.packing import MicroBatch
from learner.ranks import Ranks

Halves = tuple[list[int], list[int]]


def split_by_lag(batch: TrainBatch) -> Halves | None:
    """The fresher and the staler half of the batch's groups, by the mean lag of their tokens; None if no group is
    staler than another. Of an odd number the middle one counts as stale."""
    group_of_T = batch.group_of_C[batch.completion_of_T]
    counts_N = torch.bincount(group_of_T, minlength=batch.num_groups)
    sums_N = torch.zeros(batch.num_groups, dtype=torch.float64).index_add(0, group_of_T, batch.lags_T.double())
    lags = (sums_N / counts_N).tolist()
    order = sorted(range(batch.num_groups), key=lambda group: (lags[group], group))
    fresh, stale = order[: len(order) // 2], order[len(order) // 2 :]
    if not fresh or lags[fresh[0]] == lags[stale[-1]]:
        return None
    return sorted(fresh), sorted(stale)


def gradient_cosine(
    halves: Halves,
    own_groups: Sequence[int],
    pack: Callable[[list[int]], list[MicroBatch]],
    loss_of: Callable[[MicroBatch], torch.Tensor],
    parameters: Sequence[nn.Parameter],
    ranks: Ranks,
) -> float | None:
    """Cosine of the angle between the gradients of two halves of a batch, the same on every rank.

    `own_groups` are those of this rank, `pack` lays out some of them, `loss_of` is the loss of a micro-batch, without
    DeepSpeed. Gradients are added up in float32 and never reach the optimizer: two of the parameters' size, and the
    memory of one backward pass. None where a half has no gradient.
    """
    own = set(own_groups)
    gradients = []
    for half in halves:
        groups = [group for group in half if group in own]
        total = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in parameters]
        for micro_batch in pack(groups) if groups else []:
            parts = torch.autograd.grad(loss_of(micro_batch), parameters, allow_unused=True)
            for sum_, part in zip(total, parts, strict=True):
                if part is not None:
                    sum_ += part
        gradients.append([ranks.sum(part) for part in total])
    return _cosine(*gradients)


def _cosine(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> float | None:
    def dot(left: Sequence[torch.Tensor], right: Sequence[torch.Tensor]) -> float:
        return sum(float((a * b).sum(dtype=torch.float64)) for a, b in zip(left, right, strict=True))

    squares = dot(first, first) * dot(second, second)
    return dot(first, second) / math.sqrt(squares) if squares > 0 else None
