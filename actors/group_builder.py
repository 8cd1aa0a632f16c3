"""Completions and their rewards, made into the group that travels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from actors.engine import Completion
from protocol.group import Group


class RewardLike(Protocol):
    """`tasks.Reward`."""

    @property
    def value(self) -> float:
        """The reward."""

    @property
    def parts(self) -> dict[str, float]:
        """What it is made of."""


def build_group(
    entry_id: str,
    prompt_token_ids: np.ndarray,
    completions: Sequence[Completion],
    rewards: Sequence[RewardLike],
    actor: str,
    started_s: float,
    generation_s: float,
) -> Group:
    """The group, its arrays end to end. Raises ValueError for what no group may hold, such as an infinite reward."""
    spans = [span for completion in completions for span in completion.spans]
    return Group(
        entry_id=entry_id,
        prompt_token_ids=prompt_token_ids.astype(np.int32),
        token_ids=np.concatenate([completion.token_ids for completion in completions]).astype(np.int32),
        generator_logprobs=np.concatenate([completion.logprobs for completion in completions]).astype(np.float32),
        lengths=np.array([len(completion.token_ids) for completion in completions], np.int32),
        span_counts=np.array([len(completion.spans) for completion in completions], np.int32),
        span_lengths=np.array([num_tokens for _, num_tokens in spans], np.int32),
        span_incarnations=np.array([version.incarnation for version, _ in spans], np.int32),
        span_steps=np.array([version.step for version, _ in spans], np.int32),
        rewards=np.array([reward.value for reward in rewards], np.float32),
        stop_reasons=[completion.stop_reason for completion in completions],
        reward_parts=_parts(rewards),
        actor=actor,
        started_s=started_s,
        generation_s=generation_s,
    )


def _parts(rewards: Sequence[RewardLike]) -> dict[str, np.ndarray]:
    names = sorted({name for reward in rewards for name in reward.parts})
    # A part that a completion does not have is no number, rather than a zero that would pull its mean down.
    return {name: np.array([reward.parts.get(name, math.nan) for reward in rewards], np.float32) for name in names}
