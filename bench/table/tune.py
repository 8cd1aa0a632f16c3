"""The search for a learning rate: for every arm the same short list, on one task, with one seed that is not used again.

An arm gets the learning rate whose run ended with the highest pass@1 (the mean of its last evaluations); at a tie the
lower one. It is kept for all tasks. What was tried is written down beside the results, in `tune/`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench.table.arms import ABLATED_H, ARMS
from bench.table.asked import check_results
from bench.table.cell import Cell
from bench.table.curves import trailing_mean
from bench.table.summary import Result, whole_curve
from rapid.errors import UsageError

FOLDER = "tune"


def arm_and_rate(arm: str, lr: float) -> str:
    """Name of the trial's arm, which is its folder too."""
    return f"{arm}@{lr:g}"


def family(arm: str) -> str:
    """The arm whose learning rate this one takes: itself, but for those that differ from another in one switch.

    Ablations keep the learning rate of what they ablate, and a loss keeps its own over all lags, so that one thing
    changes at a time.
    """
    if arm.startswith("stale-"):
        return arm.rpartition("-")[0] + "-1"
    return next((name for name in (f"rapid-{ABLATED_H}", "rapid-async") if arm.startswith(f"{name}-")), arm)


def families(arms: Sequence[str]) -> list[str]:
    """The arms that are searched for."""
    return list(dict.fromkeys(family(arm) if arm in ARMS else arm for arm in arms))


def choose(results: Sequence[Result], window: int) -> dict[str, float]:
    """The learning rate of each arm that was tried."""
    best: dict[str, tuple[float, float]] = {}
    for arm, rate, score in _scores(results, window):
        best[arm] = max(best.get(arm, (-1.0, 0.0)), (score, -float(rate)))
    return {arm: -rate for arm, (_, rate) in best.items()}


def _scores(results: Sequence[Result], window: int) -> list[tuple[str, str, float]]:
    """Arm, learning rate, and pass@1 at the end, which is 0 where the trial diverged."""
    return [(*_arm_and_rate(result), trailing_mean(whole_curve(result).accuracy, window)[-1]) for result in results]


def _arm_and_rate(result: Result) -> tuple[str, str]:
    arm, _, rate = result["arm"].partition("@")
    return arm, rate


def rate_for(arm: str, found: dict[str, float]) -> float | None:
    """The learning rate of an arm; None if there was no search for it."""
    return found.get(family(arm) if arm in ARMS else arm)


def require_search(trials: Sequence[Cell]) -> None:
    """Raises UsageError where the search is not done, or was done otherwise than the plan asks."""
    for trial in trials:
        if not trial.result_path.exists():
            raise UsageError(
                f"arm {trial.arm.partition('@')[0]}: {trial.result_path} of the search for its learning rate is not "
                "there; run with --tune first, or take [learning_rates] out: all arms have the recipe's then"
            )
    check_results(trials)


def describe(results: Sequence[Result], window: int) -> dict[str, Any]:
    """What was tried and chosen, for the eye: pass@1 at the end by arm and learning rate."""
    tried: dict[str, dict[str, float]] = {}
    for arm, rate, score in _scores(results, window):
        tried.setdefault(arm, {})[rate] = round(score, 4)
    return {"tried": tried, "chosen": choose(results, window)}


def render(results: Sequence[Result], window: int) -> str:
    """The same as text."""
    return json.dumps(describe(results, window), indent=1)
