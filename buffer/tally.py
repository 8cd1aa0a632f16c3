"""What happened since the batch before: figures that the learner reports beside each step."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.group import Group


@dataclass(slots=True)
class Tally:
    """Sums over all groups submitted since the batch before."""

    groups_filtered: int = 0
    generated_tokens: int = 0
    reward_sum: float = 0.0
    num_completions: int = 0

    def add(self, group: Group) -> None:
        """Count a group that an actor submitted, whatever becomes of it."""
        self.generated_tokens += group.num_tokens
        self.reward_sum += float(group.rewards.sum(dtype="float64"))
        self.num_completions += group.num_completions

    def reward_mean(self, fallback: list[Group]) -> float:
        """Mean reward of a completion; of those in `fallback` if none was submitted."""
        if self.num_completions:
            return self.reward_sum / self.num_completions
        total = Tally()
        for group in fallback:
            total.add(group)
        return total.reward_sum / total.num_completions
