"""How long the quick start takes to learn: `python -m bench.quickstart --seeds 0 1 2`.

For each seed it runs the recipe as a user would, and reads from metrics.jsonl when the mean reward of five successive
optimizer steps first reached the goal, in seconds since the first actor was ready. The reference is a naive loop (vLLM
generates, torch trains, reload) on the same task, model and number of cores, which needed 605 s.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "bench" / "results" / "quickstart.json"
WINDOW = 5
GOAL = 0.6
LIMIT_S = 300.0
NAIVE_LOOP_S = 605.0


def run_seed(recipe: str, seed: int, folder: Path, overrides: list[str]) -> list[dict[str, Any]]:
    """Run the recipe with this seed; its records."""
    name = f"seed-{seed}"
    sets = [f"run.directory={folder}", f"run.seed={seed}", *overrides]
    arguments = [part for value in sets for part in ("--set", value)]
    subprocess.run(
        [sys.executable, "-m", "rapid.cli", "train", recipe, "--run", name, *arguments], cwd=ROOT, check=True
    )
    return [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]


def summarise(seed: int, records: list[dict[str, Any]]) -> dict[str, Any]:
    """What a run came to."""
    rewards = [record["reward_mean"] for record in records]
    means = [(fmean(rewards[i : i + WINDOW]), records[i + WINDOW - 1]) for i in range(len(rewards) - WINDOW + 1)]
    reached = next((record for mean, record in means if mean >= GOAL), None)
    return {
        "seed": seed,
        "steps": len(records),
        "reward_first_step": rewards[0],
        "reward_first_window": means[0][0],
        "reward_best_window": max(mean for mean, _ in means),
        "reward_last_window": means[-1][0],
        "reached_goal_s": reached and reached["wall_s"],
        "reached_goal_step": reached and reached["step"],
        "wall_s": records[-1]["wall_s"],
        "seconds_a_step": (records[-1]["wall_s"] - records[0]["wall_s"]) / max(len(records) - 1, 1),
        "lag_max": max(record["lag_max"] for record in records),
        "learner_wait_share": sum(r["wait_s"] for r in records) / records[-1]["wall_s"],
        "logprob_diff_mean": max((r["logprob_diff_mean"] for r in records if r["logprob_diff_mean"]), default=None),
        "ess_fraction": fmean(record["ess_fraction"] for record in records),
        "reward_curve": [round(reward, 4) for reward in rewards],
        "wall_curve_s": [round(record["wall_s"], 1) for record in records],
    }


def main() -> None:
    """Run the seeds, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="recipes/quickstart.toml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rapid-bench-") as folder:
        runs = [
            summarise(seed, run_seed(arguments.recipe, seed, Path(folder), arguments.overrides))
            for seed in arguments.seeds
        ]
    write(arguments, runs)
    for run in runs:
        reached = run["reached_goal_s"]
        when = f"{reached:.0f} s, step {run['reached_goal_step']}" if reached is not None else "not reached"
        print(
            f"seed {run['seed']}: {run['reward_first_window']:.2f} at first, {GOAL} after {when}, best "
            f"{run['reward_best_window']:.2f}, {run['seconds_a_step']:.1f} s a step, lag at most {run['lag_max']}"
        )


def write(arguments: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    """Keep the result with what is needed to read it."""
    in_time = sum(run["reached_goal_s"] is not None and run["reached_goal_s"] <= LIMIT_S for run in runs)
    result = {
        "command": f"python -m bench.quickstart --recipe {arguments.recipe} --seeds "
        + " ".join(str(seed) for seed in arguments.seeds),
        "overrides": arguments.overrides,
        "goal": f"mean reward of {WINDOW} successive steps >= {GOAL} within {LIMIT_S:g} s of the first actor",
        "seeds_in_time": f"{in_time} of {len(runs)}",
        "naive_loop_s": NAIVE_LOOP_S,
        "machine": {"cores": len(os.sched_getaffinity(0)), "processor": platform.processor() or platform.machine()},
        "recipe": tomllib.loads((ROOT / arguments.recipe).read_text()),
        "runs": runs,
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
