"""What came of an evaluation, summed up as plain data: the map that eval.jsonl, metrics.jsonl and the terminal show.

telemetry.evaluations lists its keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from actors.evaluation.interval import Estimate, estimate_share
from actors.evaluation.passk import pass_at_k
from actors.evaluation.spec import RIGHT, EvalSpec


@dataclass(frozen=True, slots=True)
class Judged:
    """One completion and what it was worth."""

    reward: float | None
    """None if it could not be judged, or not be generated."""
    num_tokens: int = 0
    is_truncated: bool = False
    """Whether it met the token limit."""
    failure: str = ""
    """Why there is no reward."""

    @property
    def is_right(self) -> bool:
        """Whether it has its full reward."""
        return self.reward is not None and self.reward >= RIGHT


@dataclass(frozen=True, slots=True)
class PromptOutcome:
    """What came of one prompt."""

    sampled: Sequence[Judged]
    """The completions drawn."""
    greedy: Judged | None = None
    """The likeliest one; None if it was not asked for."""
    difficulty: str | None = None
    """As the task says; None if it does not."""


def summarise(outcomes: Sequence[PromptOutcome], spec: EvalSpec) -> dict[str, Any]:
    """The whole evaluation as plain data. What could not be judged is left out, counted and told, never taken for 0."""
    sampled = [judged for outcome in outcomes for judged in outcome.sampled]
    greedy = [outcome.greedy for outcome in outcomes if outcome.greedy is not None]
    everything = [*sampled, *greedy]
    failures = [judged.failure for judged in everything if judged.reward is None]
    generated = [judged for judged in sampled if judged.num_tokens]
    levels = sorted({outcome.difficulty for outcome in outcomes if outcome.difficulty is not None})
    return {
        **_scores(outcomes, spec.ks),
        "n_prompts": len(outcomes),
        "n_samples": spec.samples,
        "temperature": spec.temperature,
        "unjudged": len(failures),
        "unjudged_reason": failures[0] if failures else "",
        "truncated_fraction": fmean(judged.is_truncated for judged in generated) if generated else None,
        "tokens_mean": fmean(judged.num_tokens for judged in generated) if generated else None,
        "tokens": sum(judged.num_tokens for judged in everything),
        "by_difficulty": {
            level: _level([outcome for outcome in outcomes if outcome.difficulty == level], spec.ks) for level in levels
        },
    }


def _level(outcomes: Sequence[PromptOutcome], ks: Iterable[int]) -> dict[str, Any]:
    return {**_scores(outcomes, ks), "n_prompts": len(outcomes)}


def _scores(outcomes: Sequence[PromptOutcome], ks: Iterable[int]) -> dict[str, Any]:
    pass_at = {str(k): estimate for k in ks if (estimate := _pass_at(outcomes, k)) is not None}
    greedy = [float(x.greedy.is_right) for x in outcomes if x.greedy is not None and x.greedy.reward is not None]
    return {
        "pass_at": {k: estimate.to_plain() for k, estimate in pass_at.items()},
        "greedy": estimate_share(greedy, len(greedy)).to_plain() if greedy else None,
        "mean_reward": mean_reward(outcomes),
    }


def _pass_at(outcomes: Sequence[PromptOutcome], k: int) -> Estimate | None:
    """None if no prompt has k completions that were judged."""
    rates, num_samples = [], 0
    for outcome in outcomes:
        judged = [one for one in outcome.sampled if one.reward is not None]
        if len(judged) >= k:
            rates.append(pass_at_k(len(judged), sum(one.is_right for one in judged), k))
            num_samples += len(judged)
    return estimate_share(rates, num_samples) if rates else None


def mean_reward(outcomes: Sequence[PromptOutcome]) -> float | None:
    """Mean over prompts of the mean reward of what was drawn and judged; None where nothing was."""
    by_prompt = [
        fmean(rewards)
        for outcome in outcomes
        if (rewards := [one.reward for one in outcome.sampled if one.reward is not None])
    ]
    return fmean(by_prompt) if by_prompt else None
