"""The group: one prompt, G completions, and all that the loss needs to know about them.

A group is the unit of everything and is never split. Its completions are ragged, so they are stored
end to end, with one array of lengths:

    G  completions of the group        T  generated tokens of the whole group, sum(lengths)
    P  tokens of the prompt            S  version spans of the whole group, sum(span_counts)
"""

from __future__ import annotations

import msgspec
import numpy as np

from protocol.version import PolicyVersion

STOP_REASONS = ("stop", "length")


class Group(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """G completions of one prompt. Built by an actor, kept by the buffer, trained on by the learner.

    Aligned with completions: `lengths`, `span_counts`, `rewards`, `stop_reasons` and each of
    `reward_parts`. Aligned with tokens: `token_ids`, `generator_logprobs`. Aligned with spans:
    `span_lengths`, `span_incarnations`, `span_steps`. Arrays must be read-only or not be written to.
    """

    entry_id: str
    """The ledger entry, `"epoch:index"`."""
    prompt_token_ids: np.ndarray
    """int32[P], P >= 1."""
    token_ids: np.ndarray
    """int32[T], the completions end to end."""
    generator_logprobs: np.ndarray
    """float32[T], log-probability of each token under the distribution it was drawn from
    (after temperature)."""
    lengths: np.ndarray
    """int32[G], tokens of each completion, each >= 1."""
    span_counts: np.ndarray
    """int32[G], version spans of each completion, each >= 1."""
    span_lengths: np.ndarray
    """int32[S], tokens of each span, each >= 1; the spans of a completion add up to its length."""
    span_incarnations: np.ndarray
    """int32[S]."""
    span_steps: np.ndarray
    """int32[S], optimizer step of the policy that generated the span."""
    rewards: np.ndarray
    """float32[G], finite."""
    stop_reasons: list[str]
    """G of "stop" (end of sequence) or "length" (cut at the token limit)."""
    reward_parts: dict[str, np.ndarray] = {}
    """Named parts of the reward, each float32[G]."""
    actor: str = ""
    """Name of the actor that generated the group."""
    started_s: float = 0.0
    """Unix time at which generation of the group began."""
    generation_s: float = 0.0
    """Seconds from its beginning until its last reward was there."""

    def __post_init__(self) -> None:
        _require_dtypes(self)
        num_completions, num_tokens, num_spans = len(self.lengths), len(self.token_ids), len(self.span_lengths)
        if num_completions < 1 or len(self.prompt_token_ids) < 1:
            raise ValueError(f"group {self.entry_id}: expected at least one completion and one prompt token")
        _require_length(self.entry_id, "generator_logprobs", self.generator_logprobs, num_tokens)
        for name in ("span_counts", "rewards", "stop_reasons"):
            _require_length(self.entry_id, name, getattr(self, name), num_completions)
        for name, part in self.reward_parts.items():
            _require_length(self.entry_id, f"reward_parts[{name}]", part, num_completions)
        for name in ("span_incarnations", "span_steps"):
            _require_length(self.entry_id, name, getattr(self, name), num_spans)
        self._require_sums(num_tokens, num_spans)

    def _require_sums(self, num_tokens: int, num_spans: int) -> None:
        if self.lengths.min() < 1 or int(self.lengths.sum()) != num_tokens:
            raise ValueError(f"group {self.entry_id}: lengths sum to {int(self.lengths.sum())}, tokens {num_tokens}")
        if self.span_counts.min() < 1 or int(self.span_counts.sum()) != num_spans:
            raise ValueError(f"group {self.entry_id}: span_counts sum to {self.span_counts.sum()}, spans {num_spans}")
        if self.span_lengths.min() < 1:
            raise ValueError(f"group {self.entry_id}: a version span is empty")
        first_spans = np.concatenate(([0], np.cumsum(self.span_counts)[:-1]))
        if not np.array_equal(np.add.reduceat(self.span_lengths, first_spans), self.lengths):
            raise ValueError(f"group {self.entry_id}: version spans do not add up to the lengths of the completions")
        if self.span_incarnations.min() < 1 or self.span_steps.min() < 0:
            raise ValueError(f"group {self.entry_id}: a version span has incarnation < 1 or step < 0")
        if not np.isfinite(self.rewards).all() or not np.isfinite(self.generator_logprobs).all():
            raise ValueError(f"group {self.entry_id}: rewards or generator_logprobs are not finite")
        if not set(self.stop_reasons) <= set(STOP_REASONS):
            raise ValueError(f"group {self.entry_id}: stop_reasons {set(self.stop_reasons)}, expected {STOP_REASONS}")

    @property
    def num_completions(self) -> int:
        """G."""
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        """T, generated tokens of all completions."""
        return len(self.token_ids)

    @property
    def is_without_signal(self) -> bool:
        """Whether all rewards are equal, so that no completion is worth more than another.

        Advantages are zero then on-policy, and off-policy where the baseline has no weights, or divides by them.
        """
        return bool((self.rewards == self.rewards[0]).all())

    def versions(self) -> list[PolicyVersion]:
        """The distinct policy versions that generated tokens of this group, oldest first."""
        pairs = zip(self.span_incarnations.tolist(), self.span_steps.tolist(), strict=True)
        return sorted(PolicyVersion(incarnation, step) for incarnation, step in set(pairs))


_DTYPES = {
    "prompt_token_ids": np.int32,
    "token_ids": np.int32,
    "generator_logprobs": np.float32,
    "lengths": np.int32,
    "span_counts": np.int32,
    "span_lengths": np.int32,
    "span_incarnations": np.int32,
    "span_steps": np.int32,
    "rewards": np.float32,
}


def _require_dtypes(group: Group) -> None:
    arrays = [(name, getattr(group, name), dtype) for name, dtype in _DTYPES.items()]
    arrays += [(f"reward_parts[{name}]", part, np.float32) for name, part in group.reward_parts.items()]
    for name, array, dtype in arrays:
        if array.dtype != dtype or array.ndim != 1:
            raise ValueError(
                f"group {group.entry_id}: {name} is {array.dtype} of {array.ndim} dimensions, "
                f"expected {np.dtype(dtype)} of 1"
            )


def _require_length(entry_id: str, name: str, values: np.ndarray | list[str], expected: int) -> None:
    if len(values) != expected:
        raise ValueError(f"group {entry_id}: {name} has {len(values)} elements, expected {expected}")
