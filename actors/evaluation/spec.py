"""What an evaluation asks of each prompt."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.config import EvalConfig

RIGHT = 1.0
"""A completion is right if its reward is at least this."""


@dataclass(frozen=True, slots=True)
class EvalSpec:
    """How the evaluation prompts are answered."""

    ks: tuple[int, ...]
    """Values of k for pass@k, rising."""
    samples: int
    """Completions drawn for each prompt, at least the largest k."""
    temperature: float
    """Of the draws."""
    greedy: bool
    """Whether each prompt is also answered once by its likeliest tokens."""
    prompts: int | None = None
    """Only the first prompts, so many of them. None takes all."""

    @classmethod
    def of(cls, config: EvalConfig, temperature: float) -> EvalSpec:
        """As `[task.eval]` says; `temperature` is `actors.temperature`."""
        return cls(
            ks=config.ks,
            samples=config.num_samples,
            temperature=temperature if config.temperature is None else config.temperature,
            greedy=config.greedy,
        )
