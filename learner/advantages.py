"""Group-relative advantages: what a completion's reward is worth beside those of its group.

C completions in N groups; `group_of` says to which. Baselines carry importance weights, since the completions
were drawn by an older policy: with weight w of each (detached, truncated), G completions and rewards r,

    weighted         b   = Σ_j w_j r_j / G
    plain            b   = Σ_j r_j / G
    leave_one_out    b_i = Σ_{j≠i} w_j r_j / (G − 1)
    self_normalised  b   = Σ_j w_j r_j / Σ_j w_j
    none             b   = 0

With all weights 1 the first, second and fourth are the group mean, and the third is that of RLOO (Ahmadian et
al. 2024, arXiv 2402.14740).
"""

from __future__ import annotations

import torch

# As in verl and TRL, the deviation is the sample's (G − 1). Rewards that deviate by less are equal.
MIN_DEVIATION = 1e-6


def sum_by(values: torch.Tensor, owner: torch.Tensor, num_owners: int) -> torch.Tensor:
    """Sums of `values` by their owner: (E,), int64 (E,) -> (num_owners,)."""
    return torch.zeros(num_owners, dtype=values.dtype, device=values.device).index_add(0, owner, values)


def group_advantages(
    rewards: torch.Tensor,
    weights: torch.Tensor,
    group_of: torch.Tensor,
    *,
    baseline: str,
    advantage_scale: str,
    scale_rewards: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and baselines, both (C,), detached.

    Arguments: rewards (C,), importance weights (C,), group_of int64 (C,) with groups numbered from 0. `scale_rewards`
    (C,), the rewards themselves where it is None, are those whose deviation divides with "std".
    Raises ValueError for shapes that differ, an unknown switch, or a group of one with "leave_one_out".
    """
    if not rewards.shape == weights.shape == group_of.shape or rewards.ndim != 1:
        raise ValueError(
            f"rewards {tuple(rewards.shape)}, weights {tuple(weights.shape)} and group_of {tuple(group_of.shape)}: "
            "expected one dimension and equal lengths, the number of completions"
        )
    rewards, weights = rewards.detach(), weights.detach()
    baselines = _baselines(rewards, weights, group_of, baseline)
    advantages = rewards - baselines
    if advantage_scale == "std":
        # Of equal rewards a weighted baseline leaves something off-policy, which must not be divided by nearly nothing.
        deviations = _deviations(rewards if scale_rewards is None else scale_rewards.detach(), group_of)
        advantages = torch.where(deviations > MIN_DEVIATION, advantages / deviations, torch.zeros_like(advantages))
    elif advantage_scale != "none":
        raise ValueError(f'advantage_scale is {advantage_scale!r}, expected "none" or "std"')
    return advantages, baselines


def _baselines(rewards: torch.Tensor, weights: torch.Tensor, group_of: torch.Tensor, kind: str) -> torch.Tensor:
    num_groups = _count_groups(group_of)

    def total(values: torch.Tensor) -> torch.Tensor:
        return sum_by(values, group_of, num_groups)[group_of]

    sizes = total(torch.ones_like(rewards))
    if kind == "none":
        return torch.zeros_like(rewards)
    if kind == "weighted":
        return total(weights * rewards) / sizes
    if kind == "plain":
        return total(rewards) / sizes
    if kind == "self_normalised":
        return total(weights * rewards) / total(weights).clamp_min(torch.finfo(weights.dtype).tiny)
    if kind == "leave_one_out":
        if bool((sizes < 2).any()):
            raise ValueError("baseline leave_one_out got a group of one completion, expected at least two")
        return (total(weights * rewards) - weights * rewards) / (sizes - 1)
    raise ValueError(f"baseline is {kind!r}, expected weighted, plain, leave_one_out, self_normalised or none")


def _deviations(rewards: torch.Tensor, group_of: torch.Tensor) -> torch.Tensor:
    num_groups = _count_groups(group_of)
    sizes = sum_by(torch.ones_like(rewards), group_of, num_groups)
    centred = rewards - (sum_by(rewards, group_of, num_groups) / sizes)[group_of]
    variance = sum_by(centred.square(), group_of, num_groups) / (sizes - 1).clamp_min(1)
    return variance.sqrt()[group_of]


def _count_groups(group_of: torch.Tensor) -> int:
    return int(group_of.max()) + 1 if len(group_of) else 0
