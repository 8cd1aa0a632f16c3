"""The training batch: groups as flat tensors, ready for packing and for the loss.

    N  groups        C  completions, in the order of their groups        T  generated tokens, in the order of
    P  prompt tokens of all groups                                          their completions

Nothing is padded here. Every rank builds the whole batch, so that each knows the same normalisers, and trains
on the groups that `split_groups` gives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from protocol.group import Group
from protocol.version import Lineage, PolicyVersion


@dataclass(frozen=True, kw_only=True)
class TrainBatch:
    """Groups laid end to end; all tensors on the CPU, none requires grad."""

    prompt_ids_P: torch.Tensor
    """int64, the prompts end to end."""
    prompt_lengths_N: torch.Tensor
    """int64."""
    token_ids_T: torch.Tensor
    """int64, generated tokens."""
    generator_logprobs_T: torch.Tensor
    """float32, log μ(token), after temperature."""
    lags_T: torch.Tensor
    """int64, optimizer steps between the version that generated the token and the one that trains on it."""
    completion_of_T: torch.Tensor
    """int64 in [0, C), ascending."""
    lengths_C: torch.Tensor
    """int64, tokens of each completion."""
    group_of_C: torch.Tensor
    """int64 in [0, N), ascending."""
    rewards_C: torch.Tensor
    """float32."""

    @property
    def num_groups(self) -> int:
        """N."""
        return len(self.prompt_lengths_N)

    @property
    def num_completions(self) -> int:
        """C."""
        return len(self.lengths_C)

    @property
    def num_tokens(self) -> int:
        """T, generated tokens."""
        return len(self.token_ids_T)

    def group_tokens(self) -> list[int]:
        """Prompt and generated tokens of each group, the prompt counted once."""
        lengths_N = torch.zeros_like(self.prompt_lengths_N).index_add_(0, self.group_of_C, self.lengths_C)
        return (self.prompt_lengths_N + lengths_N).tolist()

    def select_groups(self, groups: Sequence[int]) -> TrainBatch:
        """The batch of these groups alone, in this order, completions and groups numbered anew."""
        completions = _gather_ranges(self.group_of_C, self.num_groups, groups)
        tokens = _gather_ranges(self.completion_of_T, self.num_completions, completions.tolist())
        prompt_of_P = torch.repeat_interleave(torch.arange(self.num_groups), self.prompt_lengths_N)
        index = torch.tensor(list(groups), dtype=torch.int64)
        lengths_C = self.lengths_C[completions]
        counts_N = torch.bincount(self.group_of_C, minlength=self.num_groups)[index]
        return TrainBatch(
            prompt_ids_P=self.prompt_ids_P[_gather_ranges(prompt_of_P, self.num_groups, groups)],
            prompt_lengths_N=self.prompt_lengths_N[index],
            token_ids_T=self.token_ids_T[tokens],
            generator_logprobs_T=self.generator_logprobs_T[tokens],
            lags_T=self.lags_T[tokens],
            completion_of_T=torch.repeat_interleave(torch.arange(len(lengths_C)), lengths_C),
            lengths_C=lengths_C,
            group_of_C=torch.repeat_interleave(torch.arange(len(index)), counts_N),
            rewards_C=self.rewards_C[completions],
        )


def build_batch(groups: Sequence[Group], lineage: Lineage, trained: PolicyVersion) -> TrainBatch:
    """Flatten groups for the policy of version `trained`.

    Raises ValueError for no groups, and for a span whose version `lineage` does not know or that comes after
    `trained`.
    """
    if not groups:
        raise ValueError("build_batch got no groups, expected at least one")
    lengths_C = _join([group.lengths for group in groups], torch.int64)
    counts_N = torch.tensor([group.num_completions for group in groups])
    return TrainBatch(
        prompt_ids_P=_join([group.prompt_token_ids for group in groups], torch.int64),
        prompt_lengths_N=torch.tensor([len(group.prompt_token_ids) for group in groups]),
        token_ids_T=_join([group.token_ids for group in groups], torch.int64),
        generator_logprobs_T=_join([group.generator_logprobs for group in groups], torch.float32),
        lags_T=_join([_token_lags(group, lineage, trained) for group in groups], torch.int64),
        completion_of_T=torch.repeat_interleave(torch.arange(len(lengths_C)), lengths_C),
        lengths_C=lengths_C,
        group_of_C=torch.repeat_interleave(torch.arange(len(groups)), counts_N),
        rewards_C=_join([group.rewards for group in groups], torch.float32),
    )


def split_groups(group_costs: Sequence[int], num_ranks: int) -> list[list[int]]:
    """Deal groups to ranks: equally many to each, similar cost, the same answer on every rank.

    Raises ValueError where the number of groups is no multiple of `num_ranks`.
    """
    if len(group_costs) % num_ranks:
        raise ValueError(f"{len(group_costs)} groups for {num_ranks} ranks, expected a multiple of the ranks")
    order = sorted(range(len(group_costs)), key=lambda group: (-group_costs[group], group))
    hands: list[list[int]] = [[] for _ in range(num_ranks)]
    for start in range(0, len(order), num_ranks):
        # The rank with the least so far takes the dearest group of the round.
        ranks = sorted(range(num_ranks), key=lambda rank: (sum(group_costs[g] for g in hands[rank]), rank))
        for rank, group in zip(ranks, order[start : start + num_ranks], strict=True):
            hands[rank].append(group)
    return [sorted(hand) for hand in hands]


def _token_lags(group: Group, lineage: Lineage, trained: PolicyVersion) -> np.ndarray:
    lags = {version: lineage.lag(version, trained) for version in group.versions()}
    pairs = zip(group.span_incarnations.tolist(), group.span_steps.tolist(), strict=True)
    lags_S = np.array([lags[PolicyVersion(incarnation, step)] for incarnation, step in pairs], dtype=np.int64)
    return np.repeat(lags_S, group.span_lengths)


def _join(arrays: Sequence[np.ndarray], dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(arrays)).to(dtype)


def _gather_ranges(owner_of: torch.Tensor, num_owners: int, owners: Sequence[int]) -> torch.Tensor:
    """Positions of all elements of each of `owners`, where `owner_of` is ascending."""
    counts = torch.bincount(owner_of, minlength=num_owners)
    starts = (torch.cumsum(counts, 0) - counts).tolist()
    sizes = counts.tolist()
    ranges = [torch.arange(starts[owner], starts[owner] + sizes[owner]) for owner in owners]
    return torch.cat(ranges) if ranges else torch.empty(0, dtype=torch.int64)
