"""An evaluation as text for the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from actors.evaluation.spec import RIGHT
from telemetry.summary import format_number


def print_evaluation(console: Console, found: dict[str, Any]) -> None:
    """A table: scores down, all prompts and then each level of difficulty across."""
    drawn = f"{found['n_prompts']} evaluation prompts, {found['n_samples']} completions each"
    console.print(f"{drawn} at temperature {found['temperature']:g}, {found['model']}", soft_wrap=True)
    levels = found["by_difficulty"]
    columns = {"all": found, **{f"{level} ({scores['n_prompts']})": scores for level, scores in levels.items()}}
    table = Table(box=box.SIMPLE_HEAD if levels else None, show_header=bool(levels), pad_edge=False)
    table.add_column("")
    for name in columns:
        table.add_column(name, no_wrap=True)
    for k in found["pass_at"]:
        table.add_row(f"pass@{k}", *(_estimate(scores["pass_at"].get(k)) for scores in columns.values()))
    if found["greedy"] is not None:
        table.add_row("greedy", *(_estimate(scores["greedy"]) for scores in columns.values()))
    table.add_row("mean reward", *(format_number(scores["mean_reward"], 3) for scores in columns.values()))
    console.print(table)
    for line in _notes(found):
        console.print(line, soft_wrap=True)


def _notes(found: dict[str, Any]) -> list[str]:
    length, truncated = found["tokens_mean"], found["truncated_fraction"]
    lines = [
        f"Right is a reward of at least {RIGHT:g}; in brackets the 95 % interval, prompts as clusters.",
        f"{format_number(length, 1)} tokens a completion, "
        f"{'–' if truncated is None else f'{100 * truncated:.1f} %'} cut at the token limit; "
        f"{found['tokens']:,} tokens in {found['seconds']:.1f} s",
    ]
    if found["unjudged"]:
        lines.append(
            f"{found['unjudged']:,} completions could not be judged and are left out: {found['unjudged_reason']}"
        )
    return lines


def _estimate(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "–"
    return f"{estimate['mean']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"


def snapshot_line(found: dict[str, Any]) -> str:
    """One evaluated snapshot."""
    scores = "  ".join(f"pass@{k} {_estimate(estimate)}" for k, estimate in found["pass_at"].items())
    greedy = f"  greedy {_estimate(found['greedy'])}" if found["greedy"] is not None else ""
    unjudged = f"  {found['unjudged']} not judged" if found["unjudged"] else ""
    return (
        f"step {found['step']:>6}  {scores}{greedy}  mean reward {format_number(found['mean_reward'], 3)}"
        f"  {found['seconds']:.1f} s{unjudged}"
    )
