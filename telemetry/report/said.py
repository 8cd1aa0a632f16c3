"""The completions that a report carries: as many samples as a page can bear, from the whole of the run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from telemetry.samples import Sample

MAX_STEPS = 60
MAX_TOKENS = 400_000
"""Tokens of all completions of a run in a page: about 4 MB."""


def steps_said(samples: Sequence[Sample], max_steps: int = MAX_STEPS, max_tokens: int = MAX_TOKENS) -> list[Any]:
    """[{"step": 5, "groups": [sample, ...]}, ...]; of too many steps, some spread evenly, first and last included."""
    steps = [{"step": step, "groups": list(group)} for step, group in groupby(samples, lambda sample: sample["step"])]
    tokens = sum(_tokens(step) for step in steps)
    count = min(len(steps), max_steps, max(1, int(len(steps) * max_tokens / max(tokens, 1))))
    if count == len(steps):
        return steps
    return [steps[round(index * (len(steps) - 1) / max(count - 1, 1))] for index in range(count)]


def _tokens(step: dict[str, Any]) -> int:
    return sum(len(group[side]["tokens"]) for group in step["groups"] for side in ("best", "worst"))
