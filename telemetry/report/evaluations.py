"""The report's section about the held-out prompts: curves with their intervals, and the same in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from telemetry.evaluations import Evaluation
from telemetry.record import elapsed_s
from telemetry.report.html import Html, join, section, table, tag, text
from telemetry.report.run_data import RunData
from telemetry.summary import format_number

Runs = Sequence[RunData]
DASH = "–"
_NOTE = (
    "Prompts that were never trained on. In brackets and as bands the 95 % interval of the mean over prompts, each "
    "prompt with all its completions as one cluster."
)


def evaluation_data(run: RunData) -> dict[str, Any]:
    """What the pictures draw: points by k, [step, working seconds, mean, low, high], and [step, seconds, reward]."""
    times = {record["step"]: time for record, time in zip(run.records, elapsed_s(list(run.records)), strict=True)}
    times[0] = 0.0
    points: dict[str, list[list[float]]] = {}
    rewards = []
    for one in run.evaluations:
        if one["step"] not in times:
            continue
        place = [one["step"], round(times[one["step"]], 3)]
        for k, found in one["pass_at"].items():
            points.setdefault(k, []).append([*place, found["mean"], found["low"], found["high"]])
        if one["mean_reward"] is not None:
            rewards.append([*place, one["mean_reward"]])
    return {"passAt": points, "rewards": rewards}


def evaluations(runs: Runs) -> Html:
    """Curves, a table by step, and the newest by difficulty."""
    parts = [part for run in runs for part in _of_run(run, has_name=len(runs) > 1)]
    if not parts:
        return Html("")
    pictures = Html('<div class="charts" id="evaluation-charts"></div>')
    return section("evaluations", "Evaluations", join([pictures, *parts]), _NOTE)


def _of_run(run: RunData, *, has_name: bool) -> list[Html]:
    if not run.evaluations:
        return []
    parts = [tag("h3", text(run.name))] if has_name else []
    ks = sorted({k for one in run.evaluations for k in one["pass_at"]}, key=int)
    parts.append(
        table(["step", *_heads(ks), "tokens", "cut", "not judged"], [_row(one, ks) for one in run.evaluations])
    )
    last = run.evaluations[-1]
    if last.get("by_difficulty"):
        rows = [
            [level, str(scores["n_prompts"]), *_scores(scores, ks)] for level, scores in last["by_difficulty"].items()
        ]
        parts.append(tag("h3", text(f"Step {last['step']} by difficulty")))
        parts.append(table(["difficulty", "prompts", *_heads(ks)], rows))
    return parts


def _heads(ks: Sequence[str]) -> list[str]:
    return [*(f"pass@{k}" for k in ks), "greedy", "mean reward"]


def _row(one: Evaluation, ks: Sequence[str]) -> list[str]:
    cut = one.get("truncated_fraction")
    return [
        str(one["step"]),
        *_scores(one, ks),
        format_number(one.get("tokens_mean"), 1),
        DASH if cut is None else f"{100 * cut:.1f} %",
        str(one.get("unjudged", 0)),
    ]


def _scores(scores: Mapping[str, Any], ks: Sequence[str]) -> list[str]:
    estimates = [*(scores["pass_at"].get(k) for k in ks), scores.get("greedy")]
    return [*(_estimate(found) for found in estimates), format_number(scores["mean_reward"], 3)]


def _estimate(found: Mapping[str, float] | None) -> str:
    return DASH if found is None else f"{found['mean']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
