"""What a run cost, from its records and from the cores and GPUs that its parts were given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from telemetry.record import Record
from telemetry.summary import compute_figures, step_seconds

REWARD_STEP = 0.1
"""Costs of learning are given for so much more reward."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Over the working time, which begins when the first actor is ready. None where it is not known."""

    core_hours: float | None
    gpu_hours: float | None
    tokens_generated: float
    tokens_trained: int
    reward_gain: float | None
    """Reward at last minus reward at first, each a mean of some steps."""

    def per_reward(self, amount: float | None) -> float | None:
        """What REWARD_STEP more of reward cost; None where nothing was gained."""
        if amount is None or self.reward_gain is None or self.reward_gain <= 0:
            return None
        return amount * REWARD_STEP / self.reward_gain


def compute_costs(records: Sequence[Record], environment: Mapping[str, Any]) -> Costs:
    """The costs of these records; `environment` is environment.json, or empty."""
    seconds = step_seconds(records)
    figures = compute_figures(records)
    first, last = figures.reward_first, figures.reward_last
    return Costs(
        core_hours=_hours(records, seconds, environment, "cores"),
        gpu_hours=_hours(records, seconds, environment, "gpus"),
        tokens_generated=sum(
            (record["generated_tokens_per_s"] or 0.0) * length for record, length in zip(records, seconds, strict=True)
        ),
        tokens_trained=figures.tokens_trained,
        reward_gain=last - first if first is not None and last is not None else None,
    )


def _hours(
    records: Sequence[Record], seconds: Sequence[float], environment: Mapping[str, Any], kind: str
) -> float | None:
    """Wall time × what the learner and so many actors had of a kind, "cores" or "gpus"."""
    parts = environment.get("parts")
    if not parts:
        return None
    learner, actor = parts["learner"][kind], parts["actor"][kind]
    # On one machine parts may share cores, and no more can be used than there are.
    limit = environment.get("cores") if kind == "cores" and not environment.get("on_cluster") else None
    total = 0.0
    for record, length in zip(records, seconds, strict=True):
        used = learner + actor * record["actors"]
        total += length * (min(used, limit) if limit is not None else used)
    return total / 3600
