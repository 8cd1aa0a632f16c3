"""The figures that sum a run up, and the text that says them when it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from telemetry.evaluations import Evaluation, read_evaluations
from telemetry.record import Record, elapsed_s
from telemetry.run_dir import RunDirectory

WINDOW = 5
"""Successive steps whose mean stands for the reward at a moment: one step alone is noise."""
TERMINAL_STATES = ("settled", "filtered", "dropped", "dead_letter")
STATES = ("ready", "leased", "buffered", "pulled", "trained", *TERMINAL_STATES)
"""States of the ledger, in the order in which a prompt goes through them."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run came to. A mean is None where there was nothing to average."""

    steps: int
    elapsed_s: float
    reward_first: float | None
    reward_last: float | None
    reward_best: float | None
    lag_mean: float | None
    lag_max: int
    tokens_trained: int
    groups: int
    groups_filtered: int
    wait_s: float
    train_s: float
    publish_s: float
    trained_tokens_per_s: float | None
    generated_tokens_per_s: float | None
    ess_fraction: float | None
    logprob_diff_mean: float | None
    incarnations: int


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of those that are known; None for none."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def weighted_mean(records: Sequence[Record], key: str, weight: str) -> float | None:
    """Mean of `key` over records, each weighed by its `weight`, so that a short step counts for little."""
    pairs = [(record[key], record[weight] or 0.0) for record in records if record[key] is not None]
    total = sum(share for _, share in pairs)
    return sum(value * share for value, share in pairs) / total if total else None


def step_seconds(records: Sequence[Record]) -> list[float]:
    """Seconds from each record to the one before; the first counts from the start."""
    times = elapsed_s(list(records))
    return [end - start for start, end in zip([0.0, *times], times, strict=False)]


def compute_figures(records: Sequence[Record]) -> Figures:
    """The figures of these records, oldest first."""
    rewards = [record["reward_mean"] for record in records]
    windows = [mean(rewards[i : i + WINDOW]) for i in range(max(len(rewards) - WINDOW + 1, 1))]
    # A rate is weighed by the time over which it was taken: that is tokens by seconds, not a mean of means.
    timed = [{**record, "_s": seconds} for record, seconds in zip(records, step_seconds(records), strict=True)]
    return Figures(
        steps=records[-1]["step"] if records else 0,
        elapsed_s=elapsed_s(list(records))[-1] if records else 0.0,
        reward_first=windows[0],
        reward_last=windows[-1],
        reward_best=max((value for value in windows if value is not None), default=None),
        lag_mean=weighted_mean(records, "lag_mean", "tokens_trained"),
        lag_max=max((record["lag_max"] for record in records), default=0),
        tokens_trained=sum(record["tokens_trained"] for record in records),
        groups=sum(record["groups"] for record in records),
        groups_filtered=sum(record["groups_filtered"] for record in records),
        wait_s=sum(record["wait_s"] or 0.0 for record in records),
        train_s=sum(record["train_s"] or 0.0 for record in records),
        publish_s=sum(record["publish_s"] or 0.0 for record in records),
        trained_tokens_per_s=weighted_mean(timed, "trained_tokens_per_s", "_s"),
        generated_tokens_per_s=weighted_mean(timed, "generated_tokens_per_s", "_s"),
        ess_fraction=weighted_mean(records, "ess_fraction", "tokens_trained"),
        logprob_diff_mean=mean([record["logprob_diff_mean"] for record in records]),
        incarnations=max((record["incarnation"] for record in records), default=0),
    )


def ledger_line(status: Mapping[str, Any]) -> str:
    """The ledger's sum in one line, and whether it adds up."""
    counts = {state: count for state, count in status["ledger"].items() if count}
    ordered = sorted(counts, key=lambda state: STATES.index(state) if state in STATES else len(STATES))
    terms = " + ".join(f"{counts[state]:,} {state.replace('_', '-')}" for state in ordered) or "0"
    total, opened = sum(counts.values()), status["opened"]
    if total == opened:
        return f"{terms} = {opened:,} prompts opened"
    return f"{terms} = {total:,}, but {opened:,} prompts were opened: {abs(total - opened):,} are unaccounted for"


def format_duration(seconds: float) -> str:
    """`"47 s"`, `"4:20"` or `"1:04:20"`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def format_number(value: float | None, digits: int = 2) -> str:
    """The value with thousands separated; a dash for None."""
    return "–" if value is None else f"{value:,.{digits}f}"


def end_summary(
    run_dir: RunDirectory,
    records: Sequence[Record],
    *,
    max_staleness: int,
    status: Mapping[str, Any] | None = None,
    recipe: str = "RECIPE",
    total_steps: int | None = None,
) -> str:
    """What the terminal says when a run ends: where it lies, what it came to, what to type next.

    Args:
        run_dir: the run's folder.
        records: the run's current records (`RunDirectory.read_metrics`).
        max_staleness: the bound η, in optimizer steps.
        status: the hub's last Status as plain data, for the ledger's sum; None leaves it out.
        recipe: the recipe's path, for the commands to type next.
        total_steps: steps that the run was to do; with fewer done, going on is proposed.
    """
    lines = [f"Run       {_relative(run_dir.path)}", *_result_lines(compute_figures(records), max_staleness)]
    lines += _evaluation_lines(read_evaluations(run_dir.path))
    if status is not None:
        lines.append(f"Ledger    {ledger_line(status)}")
    return "\n".join([*lines, "", "Next", *_next_lines(run_dir, records, recipe, total_steps)])


def _result_lines(figures: Figures, max_staleness: int) -> list[str]:
    if not figures.steps:
        return ["Steps     none was completed; logs/ says why"]
    rewards = f"{format_number(figures.reward_first)} at first, {format_number(figures.reward_last)} at last"
    verdict = "within" if figures.lag_max <= max_staleness else "BEYOND"
    rates = " · ".join(
        f"{format_number(rate, 0)} {what}"
        for rate, what in ((figures.generated_tokens_per_s, "generated"), (figures.trained_tokens_per_s, "trained"))
    )
    return [
        f"Reward    {rewards}, {format_number(figures.reward_best)} at best (means of {WINDOW} steps)",
        f"Time      {format_duration(figures.elapsed_s)} for {figures.steps:,} steps",
        f"Lag       {figures.lag_max} at most, {verdict} the bound of {max_staleness}",
        f"Tokens/s  {rates}",
    ]


def _evaluation_lines(evaluations: Sequence[Evaluation]) -> list[str]:
    if not evaluations:
        return []
    first, last = evaluations[0], evaluations[-1]
    scores = " · ".join(
        f"pass@{k} {format_number(found['mean'])} ({format_number(found['low'])} to {format_number(found['high'])})"
        for k, found in last["pass_at"].items()
    )
    reward = f"reward {format_number(last['mean_reward'])}"
    since = f", {format_number(first['mean_reward'])} at step {first['step']:,}" if first is not last else ""
    return [f"Held out  {' · '.join(filter(None, (scores, reward)))} at step {last['step']:,}{since}"]


def _next_lines(run_dir: RunDirectory, records: Sequence[Record], recipe: str, total: int | None) -> list[str]:
    name = run_dir.name
    run = name if run_dir.path.parent == Path.cwd() / "runs" else _relative(run_dir.path)
    rows = [(f"rapid report {run}", "report.html and plots")]
    checkpoints = sorted(run_dir.checkpoints.glob("step-*[0-9]"))
    if checkpoints:
        rows.append((f"rapid eval {recipe} --checkpoint {_relative(checkpoints[-1])}", "pass@k of what was learned"))
    if total is not None and (not records or records[-1]["step"] < total):
        rows.append((f"rapid train {recipe} --run {name} --resume", "go on where it stopped"))
    else:
        more = f"--set schedule.steps={2 * (total or (records[-1]['step'] if records else 100))}"
        rows.append((f"rapid train {recipe} --run {name} --resume {more}", "train longer"))
    return [f"  {command}\n      {meaning}" for command, meaning in rows]


def _relative(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
