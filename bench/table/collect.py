"""The result of one run: what is read from its folder before the folder is deleted. Small, and without weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.table.cell import Cell
from bench.table.memory import merge_peaks
from bench.table.state import State
from bench.table.timing import read_timelines, split_time
from telemetry.evaluations import Evaluation, read_evaluations
from telemetry.record import Record, elapsed_s
from telemetry.run_dir import RunDirectory

ROOT = Path(__file__).resolve().parents[2]
FORMAT = 1
# One column each; the rest of metrics.jsonl is left behind.
KEPT = (
    "step",
    "reward_mean",
    "groups_filtered",
    "tokens_trained",
    "completion_tokens_mean",
    "lag_mean",
    "lag_max",
    "ratio_mean",
    "clipped_fraction",
    "ess_fraction",
    "kl_behaviour",
    "logprob_diff_mean",
    "grad_norm",
    "lr",
    "wait_s",
    "train_s",
    "publish_s",
    "generated_tokens_per_s",
)
_DIGITS = 5
_ENVIRONMENT = ("platform", "processor", "cores", "memory_gib", "gpus", "packages", "commit", "parts")


class CollectError(Exception):
    """A run's folder lacks what a result needs."""


def collect(cell: Cell, state: State, command: str) -> dict[str, Any]:
    """The result. Raises CollectError when the run left no step or no evaluation."""
    run = RunDirectory.open(cell.run_dir)
    records = run.read_metrics()
    if not records:
        raise CollectError(f"{cell.run_dir}/metrics.jsonl has no step")
    config, times = run.read_config(), elapsed_s(records)
    batch = config["actors"]["group_size"]
    time, every = split_time(read_timelines(run.timeline)), config["learner"]["snapshot_every"]
    points = curve(read_evaluations(run.path), records, times, batch, every)
    _require_whole(points, [] if is_diverged(run.path) else range(every, records[-1]["step"] + 1, every))
    result = {
        "format": FORMAT,
        "task": cell.task,
        "arm": cell.arm,
        "seed": cell.seed,
        "command": command,
        "overrides": dict(cell.overrides),
        "config": config,
        "environment": _environment(run),
        "budget_wall_s": cell.wall_s,
        "lives": [vars(life) for life in state.lives],
        "is_diverged": is_diverged(run.path),
        "notes": notes(cell, state, run.path, records),
        "steps": records[-1]["step"],
        "samples": sum(record["groups"] for record in records) * batch,
        "samples_generated": sum(record["groups"] + record["groups_filtered"] for record in records) * batch,
        "wall_s": round(times[-1], 2),
        "command_s": sum(life.command_s or 0.0 for life in state.lives),
        "total_s": sum(life.command_s or 0.0 for life in state.lives) + state.eval_s,
        "memory_bytes": merge_peaks(life.memory for life in state.lives),
        "time_s": {kind: round(seconds, 2) for kind, seconds in time.items()},
        "learner_s": {
            key: round(sum(record[key] for record in records), 2) for key in ("train_s", "wait_s", "publish_s")
        },
        "lag_mean": _digits(_weighted_lag(records)),
        "lag_max": max(record["lag_max"] for record in records),
        "curve": points,
        "metrics": {key: [_digits(record[key]) for record in records] for key in KEPT}
        | {"wall_s": [round(moment, 2) for moment in times]},
    }
    texts = {key: result[key] for key in ("command", "overrides", "config")}
    return {**result, **without_machine(texts, {str(cell.places.work): "WORK", str(cell.places.results): "RESULTS"})}


def without_machine(value: Any, places: Mapping[str, str]) -> Any:
    """The same with paths from the repository's root, or from the home folder: results are read elsewhere, too.

    Args:
        places: what other paths are to be called.
    """
    if isinstance(value, str):
        for path, name in {**places, f"{ROOT}/": "", str(Path.home()): "~"}.items():
            value = value.replace(path, name)
        return value
    if isinstance(value, dict):
        return {key: without_machine(one, places) for key, one in value.items()}
    return [without_machine(one, places) for one in value] if isinstance(value, list) else value


def curve(
    evaluations: Sequence[Evaluation], records: Sequence[Record], times: Sequence[float], group_size: int, every: int
) -> list[dict[str, Any]]:
    """One point for each evaluated step: time and samples from the run's records, accuracy from eval.jsonl.

    Step 0 is the model that the run began with. A run that was cut off left a snapshot of where it was: a point more
    than other runs have would count twice in the smoothing, so that only every so many steps and the last one count.
    """
    at = {record["step"]: moment for record, moment in zip(records, times, strict=True)}
    samples, total = {}, 0
    for record in records:
        total += record["groups"] * group_size
        samples[record["step"]] = total
    wanted = {0, records[-1]["step"], *(step for step in at if step % every == 0)}
    lines = {line["step"]: line for line in evaluations if line["step"] in wanted}
    return [
        {
            "step": step,
            "wall_s": round(at.get(step, 0.0), 2),
            "samples": samples.get(step, 0),
            "pass_at": lines[step]["pass_at"],
            "mean_reward": lines[step]["mean_reward"],
        }
        for step in sorted(lines)
    ]


def _require_whole(points: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> None:
    """Raises CollectError where a point of these steps is missing: the run would count as one that ended earlier."""
    missing = sorted(set(steps) - {point["step"] for point in points})
    if missing:
        raise CollectError(f"eval.jsonl has no evaluation of steps {missing}: their snapshots were not written")
    if not points:
        raise CollectError("eval.jsonl has no evaluation of any step of the run")


def last_step(run_dir: Path) -> int:
    """The last step in metrics.jsonl; 0 without one."""
    records = RunDirectory.open(run_dir).read_metrics()
    return int(records[-1]["step"]) if records else 0


def is_diverged(run_dir: Path) -> bool:
    """Whether a loss or gradient that was not finite ended the run."""
    return (run_dir / "learner-failure.json").exists()


def notes(cell: Cell, state: State, run_dir: Path, records: Sequence[Record]) -> list[str]:
    """What a reader of the table must know about this run."""
    found = [f"life {number}: {life.how}" for number, life in enumerate(state.lives, 1) if number > 1]
    if is_diverged(run_dir):
        found.append(f"diverged after step {records[-1]['step']}: a loss or gradient was not finite")
    elif cell.wall_s is not None:
        found.append(f"ended by budget.wall_s at step {records[-1]['step']}")
    return found


def _weighted_lag(records: Sequence[Record]) -> float:
    """Mean lag of all tokens trained on."""
    tokens = sum(record["tokens_trained"] for record in records)
    return sum(record["lag_mean"] * record["tokens_trained"] for record in records) / max(tokens, 1)


def _environment(run: RunDirectory) -> dict[str, Any]:
    try:
        values = json.loads(run.environment_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return {key: values.get(key) for key in _ENVIRONMENT}


def _digits(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
