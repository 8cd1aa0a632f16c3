"""A run's evaluations: `eval.jsonl`, one JSON object for each version that was evaluated.

Written by the hub for those made while the run goes on, and by `rapid eval RUN --snapshots`. In metrics.jsonl the same
map, without `wall_s`, is the value of `eval` in the record that follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from telemetry.lines import cut_torn_line, encode_line, read_lines
from telemetry.record import Record

EVALUATIONS_NAME = "eval.jsonl"
Evaluation = dict[str, Any]

KEYS: dict[str, str] = {
    "step": "Optimizer step of the weights.",
    "incarnation": "Life of the learner that made them.",
    "wall_s": "As in the training record of that step; 0 at step 0, null where there is no such record.",
    "pass_at": 'By k: "mean", "low" and "high" (95 % interval), and "prompts" that it rests on.',
    "greedy": "The same of the likeliest completion's being right; null if it was not asked for.",
    "mean_reward": "Mean over prompts of the mean reward of the completions drawn; null where none was judged.",
    "n_prompts": "Prompts asked.",
    "n_samples": "Completions drawn for each.",
    "temperature": "Of the draws.",
    "unjudged": "Completions that could not be judged; left out of all of the above.",
    "unjudged_reason": "Why the first of them could not; empty without any.",
    "truncated_fraction": "Share of the completions drawn that met the token limit.",
    "tokens_mean": "Mean length of the completions drawn.",
    "tokens": "Tokens generated in all.",
    "by_difficulty": "By level, where the task names levels: `pass_at`, `greedy`, `mean_reward`, `n_prompts`.",
    "seconds": "How long asking and judging took.",
    "source": '"training": while the run went on; "snapshot": afterwards, from a snapshot.',
}
_NEEDED = {"step", "incarnation", "pass_at", "mean_reward"}
"""Without these a line is passed over."""


def append_evaluation(run_dir: Path, evaluation: Mapping[str, Any]) -> None:
    """Append a line to a run's eval.jsonl. Raises OSError."""
    path = run_dir / EVALUATIONS_NAME
    cut_torn_line(path)
    with path.open("ab", buffering=0) as file:
        file.write(encode_line(dict(evaluation)))


def read_evaluations(run_dir: Path, is_wanted: Callable[[Evaluation], bool] = lambda one: True) -> list[Evaluation]:
    """Evaluations of the weights that the run's present ones descend from, one a step, by step; of those wanted."""
    lines = read_lines(run_dir / EVALUATIONS_NAME)
    return current_evaluations(one for one in lines if one.keys() >= _NEEDED and is_wanted(one))


def current_evaluations(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """One a step, the newest. A later incarnation's at or before a step supersedes what earlier ones did there."""
    by_version = {(one["step"], -one["incarnation"]): one for one in evaluations}
    kept: list[Evaluation] = []
    newest = 0
    for (step, _), one in sorted(by_version.items(), key=lambda item: item[0]):
        if one["incarnation"] < newest or (kept and kept[-1]["step"] == step):
            continue
        newest = one["incarnation"]
        kept.append(one)
    return kept


def wall_s_of(history: Sequence[Record], incarnation: int, step: int) -> float | None:
    """`wall_s` of the training record of a version; 0 at step 0, None where there is none."""
    if step == 0:
        return 0.0
    found = (one["wall_s"] for one in reversed(history) if (one["incarnation"], one["step"]) == (incarnation, step))
    return next(found, None)
